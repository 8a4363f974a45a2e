// A connection to /api/admin/overview that comes back by itself. The browser's own EventSource can
// send no token, so the stream is read with fetch.

import { pause, readEvents } from './events.js';

const URL_PATH = '/api/admin/overview';
const SILENCE_MS = 8000; // a snapshot comes every second
const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 15000;

/**
 * Reads until `signal` aborts. `on.event(name, data)` gets what comes, `on.state(word)` one of
 * `connecting`, `live`, `lost`, `refused` (the token is wrong: nothing more is tried).
 */
export async function follow(token, on, signal) {
  let failures = 0;
  on.state('connecting');
  while (!signal.aborted) {
    try {
      const events = await open(token, signal);
      if (events === null) return on.state('refused');
      on.state('live');
      for await (const { name, data } of events) {
        failures = 0;
        on.event(name, data);
      }
    } catch {
      // Whatever broke, the way on is the same.
    }
    if (signal.aborted) return;
    on.state('lost');
    await pause(delay(failures++), signal);
  }
}

/** Sends one request of an operator's; resolves to the answer's JSON. */
export async function ask(token, method, path, body) {
  const headers = { Authorization: `Bearer ${token}` };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error?.message ?? `The gateway answered ${response.status}.`);
  return answer;
}

async function open(token, signal) {
  const attempt = new AbortController();
  const abort = () => attempt.abort();
  signal.addEventListener('abort', abort, { once: true });
  const headers = { Accept: 'text/event-stream', Authorization: `Bearer ${token}` };
  const response = await fetch(URL_PATH, { headers, signal: attempt.signal, cache: 'no-store' });
  if (response.status === 401 || response.status === 404) return null;
  if (!response.ok) throw new Error(String(response.status));
  return readEvents(response, { silenceMs: SILENCE_MS, abort });
}

function delay(failures) {
  return Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** failures) * (0.5 + Math.random() / 2);
}
