// Streams that outlive their connections, for browsers.
//
//   const stream = openStream('/api/v2/chat-stream', { method: 'POST', body: JSON.stringify({ query }) });
//   for await (const event of stream) if (event.type === 'content_chunk') show(event.json().content);
//
// `close()` leaves the stream, which goes on without us; `stop()` ends the answer at the server.
// Its words are those of the Python client; docs/client-javascript.md has all of them.

import { EventsEvent, Frame, Queue, StreamEvent } from './sluice-delivery.js';
import { Cursor, EventParser, StreamError, isHeartbeat, isTerminal } from './sluice-parser.js';
import { Pause, Retry, Silence } from './sluice-patience.js';
import { Dropped, Source, readRefusal } from './sluice-source.js';

export { EventParser, StreamError, StreamEvent, isTerminal };

const STOP_WAIT_MS = 2000;
const OPEN_WAIT_MS = 5000;
const OFFLINE_PROBE_MS = 30_000;
const STORE_EVERY_MS = 500;
const LONG_HIDDEN_MS = 5000;
const READY = { idle: 0, connecting: 0, open: 1, reconnecting: 0, offline: 0, paused: 0, closed: 2 };

/** Asks, and reads the answer. It begins with the next microtask, so add listeners at once. */
export function openStream(url, options = {}) {
  return new EventStream(url, options);
}

/** Reads a stream again at its own URL, after `lastEventId` or from its beginning. */
export function resumeStream(url, options = {}) {
  return new EventStream(url, { ...options, method: 'GET', body: undefined, isResumed: true });
}

/**
 * Goes on with what a page before this one has left under `storageKey`; null if there is nothing.
 *
 * From the stream's beginning, since a page that was loaded anew shows nothing yet; with `fromStart`
 * false, after the last event that was delivered.
 */
export function resumeStored(storageKey, { storage = globalThis.sessionStorage, fromStart = true, ...options } = {}) {
  const kept = readStored(storage, storageKey);
  if (kept === null) return null;
  const lastEventId = fromStart ? '' : kept.lastEventId;
  return resumeStream(kept.url, { ...options, storage, storageKey, lastEventId });
}

export class EventStream extends EventTarget {
  #options;
  #source;
  #cursor;
  #retry;
  #silence;
  #pause = new Pause();
  #frame = new Frame();
  #batch = [];
  #queues = new Set();
  #abort = null; // of the attempt that runs
  #attempts = 0; // since the last event
  #retryMs = null;
  #isHurried = false; // the next attempt is made at once
  #wasUnauthorized = false;
  #isStopping = false;
  #heardAt = 0;
  #hiddenAt = 0;
  #startedAt = now();
  #lastEventAt = 0;
  #storedAt = -Infinity;
  #finished = Promise.withResolvers?.() ?? withResolvers();
  #opened = withResolvers();
  #pieces = [];
  #forget = [];

  /** `idle`, `connecting`, `open`, `reconnecting`, `offline`, `paused` (in the bfcache), `closed`. */
  state = 'idle';
  /** How it ended: `completed`, `cancelled` (stopped), `failed` or `detached` (closed); else null. */
  outcome = null;
  /** The reason of the typed route's last event. */
  reason = null;
  error = null;
  traceId = null;
  /** Date.now() of the last byte; null before. */
  lastMessageTime = null;
  /** Of the event that was delivered last. */
  lastEventId;
  metrics = {
    firstEventMs: null, maxGapMs: 0, events: 0, bytes: 0, heartbeats: 0,
    reconnects: 0, silences: 0, duplicates: 0, gaps: 0,
  };

  constructor(url, options) {
    super();
    this.#options = options;
    this.#source = new Source(url, options);
    this.#cursor = new Cursor(options.lastEventId ?? '');
    this.lastEventId = this.#cursor.lastEventId;
    this.#retry = new Retry(options.retry);
    this.#silence = new Silence(options.silence);
    this.#finished.promise.catch(() => {}); // it may be nobody's concern
    if (options.signal?.aborted) {
      this.#end('detached');
      return;
    }
    this.#watch();
    queueMicrotask(() => this.#run());
  }

  /** The server's name for this stream, once it has given one. */
  get streamId() {
    return this.#cursor.streamId;
  }

  /** The stream's own URL, once it is known: what `resumeStream` takes. */
  get url() {
    return this.#source.address;
  }

  /** As an EventSource has it: 0 connecting, 1 open, 2 closed. */
  get readyState() {
    return READY[this.state];
  }

  /** Reconnections in a row that brought no event. */
  get attempts() {
    return this.#attempts;
  }

  /** What a typed stream has said so far. */
  get text() {
    if (this.#pieces.length > 1) this.#pieces = [this.#pieces.join('')];
    return this.#pieces[0] ?? '';
  }

  /** `{outcome, reason, text, lastEventId}` at the end; rejects with a StreamError if it failed. */
  get finished() {
    return this.#finished.promise;
  }

  /** The events from now on, as fast as they are taken. Leaving the loop leaves the stream. */
  [Symbol.asyncIterator]() {
    const queue = new Queue();
    if (this.state === 'closed') queue.end(this.error);
    else this.#queues.add(queue);
    return {
      next: async () => {
        const step = await queue.next();
        if (!step.done && step.value.hasId) this.lastEventId = step.value.lastEventId;
        return step;
      },
      return: async () => {
        this.#queues.delete(queue);
        queue.drop();
        if (this.#queues.size === 0) this.close();
        return { done: true, value: undefined };
      },
    };
  }

  /** Leaves the stream, which goes on without us by its policy. */
  close() {
    this.#end('detached');
  }

  /**
   * Ends the answer at the server, which keeps what was said and gives it back.
   *
   * Events that are on their way still come, for at most 2 s; there is no reconnection any more. A
   * server that offers no way to stop is left, with `{}`. Rejects with a StreamError if it refuses or
   * can't be reached: then the stream goes on.
   */
  async stop() {
    if (this.state === 'closed') return {};
    if (this.url === null) {
      await Promise.race([this.#opened.promise, this.#finished.promise.catch(() => {}), sleep(OPEN_WAIT_MS)]);
    }
    if (this.state === 'closed') return {};
    const account = await this.#source.stop(this.streamId, this.#retry);
    if (account === null) {
      this.close();
      return {};
    }
    this.#isStopping = true;
    this.#pause.end();
    if (this.#abort === null) this.#end('cancelled');
    await Promise.race([this.#finished.promise.catch(() => {}), sleep(STOP_WAIT_MS)]);
    this.#end('cancelled');
    return account;
  }

  // One connection after the other

  async #run() {
    while (this.state !== 'closed') {
      this.#become(this.metrics.reconnects > 0 ? 'reconnecting' : 'connecting');
      try {
        await this.#attempt();
      } catch (error) {
        if (this.state === 'closed') return;
        if (!(error instanceof Dropped)) this.#fail(error);
        else if (this.#isStopping) this.#end('cancelled');
        else await this.#backOff(error.error);
      }
    }
  }

  async #attempt() {
    const isBegun = this.metrics.events > 0;
    const cursor = this.#cursor.lastEventId;
    if (isBegun && !cursor && !this.#source.isRepeatable) {
      throw new StreamError('not_resumable', 'the answer broke off and has no ids to go on from');
    }
    const abort = new AbortController();
    this.#abort = abort;
    this.#heardAt = Date.now();
    const stopWatching = this.#watchSilence(abort);
    try {
      const response = await this.#source.ask(cursor, abort.signal);
      if (this.state === 'closed') return;
      await this.#greet(response, abort);
    } catch (error) {
      throw abort.signal.aborted && abort.signal.reason instanceof Dropped ? abort.signal.reason : error;
    } finally {
      stopWatching();
      if (this.#abort === abort) this.#abort = null;
      abort.abort();
    }
  }

  async #greet(response, abort) {
    if (response.status === 204) {
      this.#end(this.#isStopping ? 'cancelled' : 'completed');
      return;
    }
    if (response.status !== 200) {
      await this.#refuse(response);
      return;
    }
    const type = response.headers.get('Content-Type') ?? '';
    if (!type.startsWith('text/event-stream')) {
      // A browser takes headers that were cut off for whole ones.
      if ('text/event-stream'.startsWith(type)) throw endedEarly();
      throw new StreamError('wrong_content_type', `the answer is ${type}`, { status: 200 });
    }
    if (!response.body) throw new StreamError('no_streaming', 'this fetch gives no streaming body');
    const known = this.#source.location;
    this.#source.learn(response);
    this.#silence.connected(response.headers);
    this.traceId = response.headers.get('X-Trace-ID') ?? this.traceId;
    this.#wasUnauthorized = false;
    this.#become('open');
    this.#opened.resolve();
    this.dispatchEvent(new Event('open'));
    const heard = this.metrics.bytes;
    try {
      await this.#read(response, abort);
    } catch (error) {
      if (this.metrics.bytes === heard) this.#source.location = known; // it may have been cut off
      throw error;
    }
  }

  async #refuse(response) {
    const error = await readRefusal(response);
    if (this.#retry.accepts(response.status, error.retryAfterMs)) throw new Dropped(error);
    if (response.status !== 401 || this.#wasUnauthorized || !this.#source.renewsHeaders) throw error;
    this.#wasUnauthorized = true; // the next turn asks again, at once, with new headers
  }

  async #read(response, abort) {
    const reader = response.body.getReader();
    const parser = new EventParser({
      lastEventId: this.#cursor.lastEventId,
      maxChars: this.#options.maxEventChars,
    });
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw new Dropped(new StreamError('connection_lost', String(error?.message ?? error), { cause: error }));
      });
      if (this.#abort !== abort || this.state === 'closed') return;
      if (done) throw endedEarly();
      this.#cursor.attach(response.headers.get('X-Stream-Id'));
      this.metrics.bytes += value.length;
      this.#hear(parser, value);
      if (this.state === 'closed') return;
      this.#heardAt = Infinity; // time that the page takes doesn't count
      for (const queue of this.#queues) await queue.room;
      this.#heardAt = Date.now();
    }
  }

  #hear(parser, bytes) {
    const { comments } = parser;
    const events = parser.push(bytes);
    this.#retryMs = parser.retryMs ?? this.#retryMs;
    this.#heardAt = this.lastMessageTime = Date.now();
    const beats = events.filter(isHeartbeat).length + parser.comments - comments;
    this.metrics.heartbeats += beats;
    this.#silence.heard(this.#heardAt, beats > 0 && events.every(isHeartbeat));
    if (this.state === 'offline') this.#become('open');
    this.#store();
    for (const event of events) {
      if (this.state === 'closed') return;
      this.#take(event);
    }
  }

  #take(event) {
    const verdict = this.#cursor.judge(event);
    if (verdict === 'duplicate') {
      this.metrics.duplicates += 1;
      return;
    }
    if (verdict === 'gap') {
      this.metrics.gaps += 1;
      this.#isHurried = true;
      throw new Dropped(new StreamError('gap', 'an event is missing'));
    }
    if (!isHeartbeat(event)) this.#count();
    this.#gather(event);
    this.#deliver(new StreamEvent(event));
    if (isTerminal(event)) this.#conclude(event);
  }

  #count() {
    const at = now();
    this.metrics.firstEventMs ??= at - this.#startedAt;
    if (this.metrics.events > 0) {
      this.metrics.maxGapMs = Math.max(this.metrics.maxGapMs, at - this.#lastEventAt);
    }
    this.#lastEventAt = at;
    this.metrics.events += 1;
    this.#attempts = 0;
  }

  #gather(event) {
    if (event.type === 'content_chunk') {
      this.#pieces.push(jsonOf(event)?.content ?? '');
    } else if (event.type === 'snapshot') {
      this.#pieces = [jsonOf(event)?.text ?? ''];
      this.#frame.flush();
      const reset = new Event('reset');
      reset.text = this.text;
      this.dispatchEvent(reset);
    }
  }

  #conclude(event) {
    if (event.type === 'complete') this.reason = jsonOf(event)?.reason ?? null;
    const isError = event.type === 'error' || event.data.startsWith('{"error"') || event.type === 'response.failed';
    if (isError) {
      const data = jsonOf(event);
      const told = data?.error ?? data?.response?.error ?? data;
      this.#fail(new StreamError(String(told?.code ?? told?.type ?? 'error'), told?.message));
    } else {
      this.#end(this.#isStopping || this.reason === 'user_requested' ? 'cancelled' : 'completed');
    }
  }

  async #backOff(error) {
    const isOffline = globalThis.document !== undefined && navigator.onLine === false;
    if (this.#isHurried) {
      this.#isHurried = false;
    } else if (isOffline || this.state === 'paused') {
      // Nobody's fault, so it isn't counted.
      if (this.state !== 'paused') this.#become('offline');
      await this.#pause.wait(OFFLINE_PROBE_MS);
    } else {
      this.#attempts += 1;
      if (!this.#retry.allows(this.#attempts)) {
        this.#fail(error);
        return;
      }
      const delay = this.#retry.delay(this.#attempts, this.#retryMs, error.retryAfterMs);
      this.#become('reconnecting', { error, retryIn: delay });
      await this.#pause.wait(delay);
    }
    if (this.state !== 'closed') this.metrics.reconnects += 1;
  }

  // What the page and the network say

  #watch() {
    const listen = (target, type, call) => {
      if (!target?.addEventListener) return;
      target.addEventListener(type, call);
      this.#forget.push(() => target.removeEventListener(type, call));
    };
    const page = globalThis.document;
    listen(this.#options.signal, 'abort', () => this.close());
    if (!page) return;
    listen(globalThis, 'online', () => this.#online());
    listen(globalThis, 'offline', () => this.state === 'open' && this.#become('offline'));
    listen(page, 'visibilitychange', () => this.#seen(page.visibilityState === 'visible'));
    listen(page, 'resume', () => this.#seen(true));
    listen(globalThis, 'pagehide', (event) => {
      this.#storedAt = -Infinity;
      this.#store();
      if (event.persisted) this.#freeze();
    });
    listen(globalThis, 'pageshow', (event) => (event.persisted ? this.#hurry() : this.#seen(true)));
  }

  /** The page is looked at again: a connection that has been silent meanwhile may be dead. */
  #seen(isVisible) {
    if (!isVisible) {
      this.#hiddenAt = Date.now();
      return;
    }
    const wasLong = this.#hiddenAt > 0 && Date.now() - this.#hiddenAt > LONG_HIDDEN_MS;
    this.#hiddenAt = 0;
    if (this.#abort === null) {
      this.#hurry();
      return;
    }
    const silent = Date.now() - this.#heardAt;
    const usual = 1.5 * (this.#silence.interval || this.#silence.limit / 2.5);
    if (this.state === 'open' && silent > usual && (wasLong || silent > this.#silence.limit)) {
      this.#replace('silent');
    }
  }

  /** A connection from before the network went is dead, though it may not look so. */
  #online() {
    if (this.state === 'offline' && this.#abort !== null) this.#replace('offline');
    else this.#hurry();
  }

  /** Into the back-forward cache, where no connection may be open. */
  #freeze() {
    if (this.state === 'closed') return;
    this.#become('paused');
    this.#drop(new StreamError('paused', 'the page is in the back-forward cache'));
  }

  /** What waits for its next attempt makes it now. */
  #hurry() {
    if (this.state === 'paused') this.#become('reconnecting');
    this.#pause.end();
  }

  /** Another connection, at once. */
  #replace(code) {
    this.#isHurried = true;
    this.#drop(new StreamError(code, 'nothing came for too long'));
  }

  #drop(error) {
    this.#abort?.abort(new Dropped(error));
  }

  /** Looks by the wall clock, so that a tab that was frozen notices as soon as it thaws. */
  #watchSilence(abort) {
    let timer = null;
    const look = () => {
      const left = this.#heardAt + this.#silence.limit - Date.now();
      if (left <= 0) {
        this.metrics.silences += 1;
        abort.abort(new Dropped(new StreamError('silent', `nothing came for ${this.#silence.limit} ms`)));
      } else if (Number.isFinite(left)) {
        timer = setTimeout(look, Math.min(left + 1, 1000));
      } else {
        timer = setTimeout(look, 1000);
      }
    };
    look();
    return () => clearTimeout(timer);
  }

  // Telling

  #deliver(event) {
    for (const queue of this.#queues) queue.push(event);
    if (this.#options.coalesce === 'frame') {
      this.#batch.push(event);
      this.#frame.request(() => this.#flush());
      return;
    }
    this.#mark(event);
    this.dispatchEvent(event);
  }

  #flush() {
    const events = this.#batch;
    this.#batch = [];
    if (events.length === 0) return;
    this.#mark(events.findLast((event) => event.hasId));
    this.dispatchEvent(new EventsEvent(events));
  }

  #mark(event) {
    if (this.#queues.size === 0 && event?.hasId) this.lastEventId = event.lastEventId;
  }

  #become(state, more = {}) {
    if (this.state === state || this.state === 'closed') return;
    this.state = state;
    const event = new Event('statechange');
    Object.assign(event, { state, attempt: this.#attempts, error: null, retryIn: null }, more);
    this.dispatchEvent(event);
  }

  #fail(error) {
    const failure = error instanceof StreamError ? error : new StreamError('client_failed', String(error), { cause: error });
    failure.partial = this.text;
    this.#end('failed', failure);
  }

  #end(outcome, error = null) {
    if (this.state === 'closed') return;
    this.#frame.flush();
    this.outcome = outcome;
    this.error = error;
    this.#become('closed', { error });
    this.#abort?.abort();
    this.#pause.end();
    for (const forget of this.#forget) forget();
    this.#opened.resolve();
    if (outcome !== 'detached') this.#unstore();
    for (const queue of this.#queues) outcome === 'detached' ? queue.drop() : queue.end(error);
    this.#settle(outcome, error);
  }

  #settle(outcome, error) {
    const { text, reason } = this;
    const { lastEventId } = this.#cursor;
    if (error === null) {
      this.#finished.resolve({ outcome, reason, text, lastEventId });
    } else {
      this.#finished.reject(error);
      const event = new Event('error');
      event.error = error;
      this.dispatchEvent(event);
    }
    const event = new Event('finish');
    Object.assign(event, { outcome, reason, error });
    this.dispatchEvent(event);
  }

  // For the next page

  #store() {
    const { storage = globalThis.sessionStorage, storageKey } = this.#options;
    const at = now();
    if (!storageKey || !this.url || at - this.#storedAt < STORE_EVERY_MS) return;
    this.#storedAt = at;
    const kept = { url: this.url, streamId: this.streamId, lastEventId: this.#cursor.lastEventId };
    try {
      storage.setItem(storageKey, JSON.stringify(kept));
    } catch {
      // Full or forbidden: then the next page can't go on.
    }
  }

  #unstore() {
    const { storage = globalThis.sessionStorage, storageKey } = this.#options;
    if (storageKey) storage.removeItem(storageKey);
  }
}

function readStored(storage, key) {
  try {
    const kept = JSON.parse(storage.getItem(key));
    return typeof kept?.url === 'string' ? kept : null;
  } catch {
    return null;
  }
}

/** An orderly end without the last event is a connection that was cut. */
function endedEarly() {
  return new Dropped(new StreamError('ended_early', 'it ended without its last event'));
}

function jsonOf({ data }) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

function withResolvers() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

function now() {
  return performance.now();
}

function sleep(ms) {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
