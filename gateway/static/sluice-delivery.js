// How events reach the page: to listeners at once or once a frame, and to iterators that pull.

const HIDDEN_FRAME_MS = 50;
const HIGH_WATER = 256;

/** Names that the client uses itself; a server's event of such a name is `message:<name>`. */
const RESERVED = new Set(['open', 'error', 'statechange', 'reset', 'finish', 'event', 'events']);

/** One event of the server. */
export class StreamEvent extends Event {
  constructor({ type, data, id, hasId }) {
    super(RESERVED.has(type) ? `message:${type}` : type);
    /** The server's name for it. */
    this.name = type;
    this.data = data;
    this.lastEventId = id;
    this.hasId = hasId;
  }

  /** The data as JSON. Throws a SyntaxError if it isn't. */
  json() {
    return JSON.parse(this.data);
  }
}

/** What listeners are given once a frame. */
export class EventsEvent extends Event {
  constructor(events) {
    super('events');
    this.events = events;
  }
}

/** Calls back once, with the next frame; hidden pages have none, so there after 50 ms. */
export class Frame {
  #handle = null;
  #timer = null;
  #call = null;

  request(call) {
    if (this.#call !== null) return;
    this.#call = call;
    const run = () => this.flush();
    if (globalThis.document?.visibilityState === 'visible') this.#handle = requestAnimationFrame(run);
    // A page that is hidden while it waits gets no frame any more.
    this.#timer = setTimeout(run, HIDDEN_FRAME_MS);
  }

  /** Now, if something waits. */
  flush() {
    const call = this.#call;
    this.cancel();
    call?.();
  }

  cancel() {
    if (this.#handle !== null) cancelAnimationFrame(this.#handle);
    clearTimeout(this.#timer);
    this.#handle = this.#timer = this.#call = null;
  }
}

/** Events for one iterator. Whoever fills it waits in `room` once it holds a lot. */
export class Queue {
  #events = [];
  #head = 0;
  #waiting = null;
  #drained = null;
  #end = null; // {error} once nothing more comes

  push(event) {
    this.#events.push(event);
    this.#wake();
  }

  /** Nothing more comes; `error` is thrown once what is there has been taken. */
  end(error = null) {
    this.#end ??= { error };
    this.#wake();
    this.#drained?.();
  }

  /** Takes all that is there with it. */
  drop() {
    this.#events = [];
    this.#head = 0;
    this.end();
  }

  /** A promise while it is full, else null. */
  get room() {
    if (this.#events.length - this.#head < HIGH_WATER || this.#end !== null) return null;
    return new Promise((resolve) => {
      this.#drained = resolve;
    });
  }

  async next() {
    while (this.#head === this.#events.length) {
      if (this.#end !== null) {
        const { error } = this.#end;
        this.#end = { error: null };
        if (error !== null) throw error;
        return { done: true, value: undefined };
      }
      await new Promise((resolve) => {
        this.#waiting = resolve;
      });
    }
    return { done: false, value: this.#take() };
  }

  #take() {
    const event = this.#events[this.#head];
    this.#events[this.#head++] = undefined;
    if (this.#head === this.#events.length) {
      this.#events = [];
      this.#head = 0;
    }
    if (this.#events.length - this.#head < HIGH_WATER / 2) this.#drained?.();
    return event;
  }

  #wake() {
    this.#waiting?.();
    this.#waiting = null;
  }
}
