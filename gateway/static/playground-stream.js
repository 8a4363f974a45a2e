// One answer of the typed route, whatever becomes of its connection. The question is asked once by
// POST; after that the stream has a place of its own, which is read again from the last event on.

import { pause, readEvents } from './events.js';

const ROUTE = '/api/v2/chat-stream';
const STREAMS = '/api/v2/streams';
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const MOST_FAILURES = 12;
const DEFAULT_SILENCE_MS = 15_000;
const WORTH_A_RETRY = new Set([408, 425, 429, 500, 502, 503, 504]);

/** What the gateway refused, in its own words. */
export class Refused extends Error {
  constructor(status, { message, code, trace_id: traceId } = {}) {
    super(message ?? `The gateway answered ${status}.`);
    Object.assign(this, { status, code, traceId });
  }
}

export class AnswerStream {
  /**
   * `on.state(word, detail)` is told `connecting`, `waiting`, `open`, `reconnecting`, `offline`;
   * `on.event(event)` gets each event once, in order; `on.opened(headers)` each response that
   * begins. `headers` go with every request.
   */
  constructor(on, headers = {}) {
    this.on = on;
    this.headers = headers;
    this.id = null;
    this.lastId = '';
    this.attempt = null;
    this.closing = new AbortController();
    this.isOver = false;
    this.wantsStop = false;
  }

  /** Asks; resolves when the answer has ended. Rejects with `Refused` or when it gives up. */
  ask(question) {
    this.question = JSON.stringify(question);
    this.key = crypto.randomUUID();
    return this._run();
  }

  /** Reads a stream that was begun earlier, from its beginning. */
  resume(id) {
    this.id = id;
    return this._run();
  }

  /** Ends the answer for good; what has come stays. Works before the first token too. */
  async stop() {
    this.wantsStop = true;
    if (this.id === null) return; // done as soon as the stream has a name
    const response = await fetch(`${STREAMS}/${this.id}`, { method: 'DELETE', headers: this.headers, keepalive: true });
    if (!response.ok) throw await refusal(response);
  }

  /** Breaks the connection and nothing else, as a bad network would. */
  cut() {
    this.attempt?.abort();
  }

  /** Leaves the stream to itself. */
  close() {
    this.closing.abort();
    this.cut();
  }

  async _run() {
    for (let failures = 0; !this.isOver && !this.closing.signal.aborted; ) {
      const seen = this.lastId;
      try {
        this.on.state(seen || this.id ? 'reconnecting' : 'connecting', failures);
        await this._read(await this._open());
      } catch (error) {
        if (this._isFinal(error) || failures >= MOST_FAILURES) throw error;
      }
      if (this.isOver || this.closing.signal.aborted) return;
      failures = this.lastId === seen ? failures + 1 : 0;
      await this._rest(failures);
    }
  }

  /** A refused question is the asker's business; only what runs is worth a second try. */
  _isFinal(error) {
    return error instanceof Refused && (this.id === null || !WORTH_A_RETRY.has(error.status));
  }

  async _open() {
    this.attempt = new AbortController();
    const response = await (this.id === null ? this._post() : this._get());
    if (response.status === 204) {
      this.isOver = true; // nothing follows the last event that was seen
      return null;
    }
    if (!response.ok) throw await refusal(response);
    this.id = response.headers.get('X-Stream-Id');
    this.on.opened(response.headers);
    if (this.wantsStop) this.stop().catch(() => {});
    return response;
  }

  _post() {
    const headers = { ...this.headers, 'Content-Type': 'application/json', 'Idempotency-Key': this.key };
    return fetch(ROUTE, { method: 'POST', headers, body: this.question, signal: this.attempt.signal });
  }

  _get() {
    const headers = { ...this.headers, Accept: 'text/event-stream' };
    if (this.lastId) headers['Last-Event-ID'] = this.lastId;
    return fetch(`${STREAMS}/${this.id}`, { headers, signal: this.attempt.signal, cache: 'no-store' });
  }

  async _read(response) {
    if (response === null) return;
    const threshold = Number(response.headers.get('X-Silence-Threshold')) * 1000;
    const abort = () => this.cut();
    if (!this.lastId) this.on.state('waiting');
    for await (const event of readEvents(response, { silenceMs: threshold || DEFAULT_SILENCE_MS, abort })) {
      if (event.id && this._isOld(event.id)) continue;
      if (event.id) this.lastId = event.id;
      if (event.name === 'content_chunk' || event.name === 'snapshot') this.on.state('open');
      this.isOver = event.name === 'complete' || event.name === 'error';
      this.on.event(event);
      if (this.isOver) return;
    }
  }

  _isOld(id) {
    return this.lastId !== '' && number(id) <= number(this.lastId);
  }

  /** Waits before the next try: full jitter, or until the network is back. */
  async _rest(failures) {
    if (!navigator.onLine) {
      this.on.state('offline');
      await new Promise((resolve) => {
        addEventListener('online', resolve, { once: true });
        this.closing.signal.addEventListener('abort', resolve, { once: true });
      });
      return;
    }
    this.on.state('reconnecting', failures);
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** failures);
    await pause(200 + Math.random() * longest, this.closing.signal);
  }
}

function number(id) {
  return Number(id.slice(id.lastIndexOf('.') + 1));
}

async function refusal(response) {
  const answer = await response.json().catch(() => ({}));
  return new Refused(response.status, answer.error);
}
