// The playground's way to the gateway: the browser client, and a connection that can be cut.

import { openStream, resumeStored } from './sluice.js';

const ROUTE = '/api/v2/chat-stream';
const KEPT = 'sluice-playground';
const ASKED = 'sluice-playground-question';
const RETRY = { min: 500, max: 15_000, maxAttempts: 12 };

export class Connection {
  #cut = new AbortController();

  /** The trace id of the latest answer, a refusal's too. */
  traceId = null;

  /** `headers` go with every request. */
  constructor(headers) {
    this.options = { headers, retry: RETRY, storageKey: KEPT, fetch: (url, init) => this.#fetch(url, init) };
  }

  /** Asks; the stream is kept for a page that is loaded again. */
  ask(question) {
    sessionStorage.removeItem(KEPT);
    sessionStorage.setItem(ASKED, question);
    return openStream(ROUTE, { ...this.options, method: 'POST', body: JSON.stringify({ query: question }) });
  }

  /** What an earlier load of this page was reading: `{stream, question}`, or null. */
  goOn() {
    const stream = resumeStored(KEPT, this.options);
    return stream && { stream, question: sessionStorage.getItem(ASKED) ?? '' };
  }

  /** Forgets what an earlier load was reading. */
  forget() {
    sessionStorage.removeItem(KEPT);
  }

  /** Breaks the connection and nothing else, as a bad network would. */
  cut() {
    this.#cut.abort();
  }

  async #fetch(url, init) {
    this.#cut = new AbortController();
    const signal = AbortSignal.any([init.signal, this.#cut.signal]);
    const response = await fetch(url, { ...init, signal });
    this.traceId = response.headers.get('X-Trace-ID');
    return response;
  }
}
