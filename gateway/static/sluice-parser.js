// Server-sent events from bytes, as the HTML standard reads them (section 9.2.6), and the kinds of
// event that this client tells apart. No network, no clock.

const CR = 13;
const LF = 10;
const MAX_CHARS = 16 * 1024 * 1024;

/** Why a stream can't go on. `code` is stable; `status` is the HTTP status, where there was one. */
export class StreamError extends Error {
  constructor(code, message, { status = null, retryAfterMs = null, cause } = {}) {
    super(message || code, cause === undefined ? undefined : { cause });
    this.name = 'StreamError';
    this.code = code;
    this.status = status;
    this.retryAfterMs = retryAfterMs;
    /** What had been said before it. */
    this.partial = '';
  }
}

/**
 * One pass over a connection's bytes, however they are cut.
 *
 * What a connection leaves unfinished at its end is no event; use a new parser for the next one.
 */
export class EventParser {
  #decoder = new TextDecoder(); // drops one byte order mark, replaces what isn't UTF-8
  #pieces = []; // of a line whose end hasn't come
  #size = 0; // characters held
  #skipsLf = false;
  #data = [];
  #type = '';
  #id;
  #hasId = false;
  #maxChars;

  /** Comments seen: a heartbeat where there are no events for it. */
  comments = 0;
  /** The last `retry:`, in milliseconds; null before. */
  retryMs = null;

  constructor({ lastEventId = '', maxChars = MAX_CHARS } = {}) {
    this.#id = lastEventId;
    this.#maxChars = maxChars;
  }

  /**
   * The events that end in these bytes: `{type, data, id, hasId}`, `id` as it stands then.
   *
   * Throws a StreamError `event_too_large`.
   */
  push(bytes) {
    const events = [];
    const text = this.#decoder.decode(bytes, { stream: true });
    let from = 0;
    if (this.#skipsLf && text.length > 0) {
      this.#skipsLf = false;
      if (text.charCodeAt(0) === LF) from = 1;
    }
    const end = /[\r\n]/g;
    end.lastIndex = from;
    for (let found = end.exec(text); found !== null; found = end.exec(text)) {
      const at = found.index;
      this.#line(this.#joined(text.slice(from, at)), events);
      from = at + 1;
      if (text.charCodeAt(at) === CR) {
        if (from === text.length) this.#skipsLf = true;
        else if (text.charCodeAt(from) === LF) from += 1;
      }
      end.lastIndex = from;
    }
    if (from < text.length) this.#hold(text.slice(from));
    return events;
  }

  #joined(last) {
    if (this.#pieces.length === 0) return last;
    this.#pieces.push(last);
    const line = this.#pieces.join('');
    this.#pieces = [];
    return line;
  }

  #hold(piece) {
    this.#pieces.push(piece);
    this.#grow(piece.length);
  }

  #grow(length) {
    this.#size += length;
    if (this.#size > this.#maxChars) {
      throw new StreamError('event_too_large', `an event is over ${this.#maxChars} characters`);
    }
  }

  #line(line, events) {
    if (line === '') {
      this.#dispatch(events);
      return;
    }
    const colon = line.indexOf(':');
    if (colon === 0) {
      this.comments += 1;
      return;
    }
    const field = colon < 0 ? line : line.slice(0, colon);
    const start = line.charCodeAt(colon + 1) === 32 ? colon + 2 : colon + 1;
    this.#field(field, colon < 0 ? '' : line.slice(start));
  }

  #field(field, value) {
    if (field === 'data') {
      this.#data.push(value);
      this.#grow(value.length + 1);
    } else if (field === 'event') {
      this.#type = value;
    } else if (field === 'id') {
      if (!value.includes('\0')) {
        this.#id = value;
        this.#hasId = true;
      }
    } else if (field === 'retry' && /^[0-9]+$/.test(value)) {
      this.retryMs = Number(value);
    }
  }

  #dispatch(events) {
    if (this.#data.length > 0) {
      const data = this.#data.join('\n');
      events.push({ type: this.#type || 'message', data, id: this.#id, hasId: this.#hasId });
    }
    this.#data = [];
    this.#type = '';
    this.#hasId = false;
    this.#size = 0;
  }
}

const TERMINAL = new Set([
  'complete', 'error', 'message_stop',
  'response.completed', 'response.incomplete', 'response.failed', 'response.cancelled',
]);

/** Whether nothing follows: the ends of Sluice's, OpenAI's and Anthropic's streams. */
export function isTerminal({ type, data }) {
  if (type === 'message') return data === '[DONE]' || data.startsWith('{"error"');
  return TERMINAL.has(type);
}

/** Whether an event says only that the connection lives. */
export function isHeartbeat({ type, hasId }) {
  return !hasId && (type === 'heartbeat' || type === 'ping');
}

/**
 * Where a stream stands, and what the next event is to it: `new`, `duplicate` or `gap`.
 *
 * Numbers are read only from ids `<stream id>.<number>` of a stream that named itself by
 * `X-Stream-Id`: in anybody else's ids a dot and digits mean nothing.
 */
export class Cursor {
  #seq = null;
  #gapAfter = null;

  streamId = null;

  constructor(lastEventId = '') {
    this.lastEventId = lastEventId;
  }

  /** A response of this stream begins. */
  attach(streamId) {
    if (streamId && streamId !== this.streamId) {
      this.streamId = streamId;
      this.#seq = this.#number(this.lastEventId);
    }
  }

  /** Moves on if the event is new. Throws a StreamError `gap` where the same gap came twice. */
  judge(event) {
    if (!event.hasId) return 'new';
    const seq = this.#number(event.id);
    if (seq !== null && this.#seq !== null && event.type !== 'snapshot') {
      if (seq <= this.#seq) return 'duplicate';
      if (seq > this.#seq + 1) return this.#gap(seq);
    }
    if (seq !== null) this.#seq = seq;
    this.lastEventId = event.id;
    return 'new';
  }

  #gap(found) {
    if (this.#gapAfter === this.#seq) {
      throw new StreamError('gap', `event ${this.#seq + 1} is missing: ${found} came after ${this.#seq}`);
    }
    this.#gapAfter = this.#seq;
    return 'gap';
  }

  #number(id) {
    const dot = id.lastIndexOf('.');
    if (dot < 0 || id.slice(0, dot) !== this.streamId) return null;
    return /^[0-9]{1,15}$/.test(id.slice(dot + 1)) ? Number(id.slice(dot + 1)) : null;
  }
}
