// What the dashboard asks of /api/admin.

import { openStream } from './sluice.js';

const OVERVIEW = '/api/admin/overview';
const SILENCE_MS = 8000; // the state comes every second
const RETRY = { min: 1000, max: 15_000, maxAttempts: Infinity };
const STATES = { connecting: 'connecting', open: 'live', reconnecting: 'lost', offline: 'lost', paused: 'lost' };

/**
 * Follows the gateway until `signal` aborts. `on.event(name, data)` gets what comes, `on.state(word)`
 * one of `connecting`, `live`, `lost`, `refused` (the token is wrong: nothing more is tried).
 */
export async function follow(token, on, signal) {
  const headers = { Authorization: `Bearer ${token}` };
  const stream = openStream(OVERVIEW, { headers, silence: SILENCE_MS, retry: RETRY, signal });
  let isRefused = false;
  stream.addEventListener('statechange', ({ state }) => STATES[state] && on.state(STATES[state]));
  try {
    for await (const event of stream) on.event(event.name, event.json());
  } catch (error) {
    isRefused = error.status === 401 || error.status === 404;
    if (!isRefused) throw error;
  }
  if (isRefused && !signal.aborted) on.state('refused');
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
