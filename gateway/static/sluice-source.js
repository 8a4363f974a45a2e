// The requests of a stream: the question, going on with its answer, stopping it.

import { retryAfterMs, Pause } from './sluice-patience.js';
import { StreamError } from './sluice-parser.js';

const STOP_ATTEMPTS = 3;
const STOP_TIMEOUT_MS = 10_000;

/** A connection's end that another may mend; it never leaves the client. */
export class Dropped extends Error {
  constructor(error) {
    super(error.message);
    this.error = error;
  }
}

/**
 * Asks, and once the server has named the stream (`Location`) asks for that instead.
 *
 * A `Location` on another origin is ignored: the credentials aren't for it.
 */
export class Source {
  #url;
  #options;
  #key;

  /** Where the stream is, once that is known. */
  location = null;

  constructor(url, options) {
    this.#url = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    this.#options = options;
    this.#key = options.idempotencyKey ?? (this.#isGet ? null : randomKey());
  }

  get #isGet() {
    return (this.#options.method ?? 'GET').toUpperCase() === 'GET';
  }

  /** Whether asking again, even without a cursor, can't begin a second answer. */
  get isRepeatable() {
    return this.location !== null || this.#isGet;
  }

  get renewsHeaders() {
    return typeof this.#options.headers === 'function';
  }

  /** Where to read the stream again: its own address, or that of a question that is a GET. */
  get address() {
    return this.location?.href ?? (this.#isGet ? this.#url.href : null);
  }

  /** Takes the stream's address from a response that is its stream. */
  learn(response) {
    const given = response.headers.get('Location');
    if (!given) return;
    const base = response.url || this.#url.href;
    if (!URL.canParse(given, base)) return;
    const url = new URL(given, base);
    if (url.origin === new URL(base).origin) this.location = url;
  }

  /** One attempt. Throws Dropped where the network failed. */
  async ask(lastEventId, signal) {
    const headers = await this.#headers();
    if (!headers.has('Accept')) headers.set('Accept', 'text/event-stream');
    if (lastEventId) headers.set('Last-Event-ID', lastEventId);
    if (this.location !== null) return this.#send(this.location, { headers, signal });
    const { body } = this.#options;
    if (this.#key !== null) headers.set('Idempotency-Key', this.#key);
    if (typeof body === 'string' && !headers.has('Content-Type')) {
      headers.set('Content-Type', 'application/json');
    }
    return this.#send(this.#url, { method: this.#options.method ?? 'GET', headers, body, signal });
  }

  /** The server's account of the stream that it has ended; null where there is no way to do so. */
  async stop(streamId, retry) {
    const pause = new Pause();
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#stopOnce(streamId);
      } catch (caught) {
        const error = caught instanceof Dropped ? caught.error : caught;
        const isFinal = error.status !== null && !retry.accepts(error.status, error.retryAfterMs);
        if (isFinal || attempt === STOP_ATTEMPTS) throw error;
        await pause.wait(retry.delay(attempt, 0, error.retryAfterMs));
      }
    }
  }

  async #stopOnce(streamId) {
    const headers = await this.#headers();
    const common = { headers, keepalive: true, signal: AbortSignal.timeout(STOP_TIMEOUT_MS) };
    let response;
    if (this.#options.stopUrl) {
      headers.set('Content-Type', 'application/json');
      const body = JSON.stringify({ sessionId: streamId });
      const url = new URL(this.#options.stopUrl, this.#url);
      response = await this.#send(url, { ...common, method: 'POST', body });
    } else if (this.location !== null) {
      response = await this.#send(this.location, { ...common, method: 'DELETE' });
    } else {
      return null;
    }
    if (!response.ok) throw await readRefusal(response);
    return response.json().catch(() => ({}));
  }

  async #headers() {
    const given = this.#options.headers;
    return new Headers((typeof given === 'function' ? await given() : given) ?? {});
  }

  async #send(url, init) {
    const fetch = this.#options.fetch ?? globalThis.fetch;
    const credentials = this.#options.credentials ?? 'same-origin';
    try {
      return await fetch(url.href, { cache: 'no-store', credentials, ...init });
    } catch (error) {
      // Every browser has words of its own for a network that failed.
      throw new Dropped(new StreamError('connection_failed', String(error?.message ?? error), { cause: error }));
    }
  }
}

/** The error that a response stands for, with the server's own code where it gives one. */
export async function readRefusal(response) {
  const more = {
    status: response.status,
    retryAfterMs: retryAfterMs(response.headers.get('Retry-After')),
  };
  const data = await response.json().catch(() => null);
  const error = data?.error;
  const plain = `the server answered ${response.status}`;
  if (error !== null && typeof error === 'object') {
    const code = error.code ?? error.type ?? `http_${response.status}`;
    return new StreamError(String(code), String(error.message ?? plain), more);
  }
  return new StreamError(`http_${response.status}`, typeof error === 'string' ? error : plain, more);
}

function randomKey() {
  // crypto.randomUUID is for secure pages only; this is for all.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
