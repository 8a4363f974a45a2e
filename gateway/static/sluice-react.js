// A hook around `openStream`, for React 18 and later. It makes nothing while a component renders, asks
// once under StrictMode, and leaves the stream when the component goes: to end the answer is `stop`.

import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { openStream } from './sluice.js';

const ROUTE = '/api/v2/chat-stream';
const IDLE = Object.freeze({
  status: 'idle',
  isConnected: false,
  isReconnecting: false,
  reconnectAttempts: 0,
  lastMessageTime: null,
  traceId: null,
});

/** What a component sees: one stream after the other, and a snapshot that changes with it. */
class Session {
  #listeners = new Set();
  #stream = null;
  #query = null;
  #leaving = null;

  snapshot = IDLE;

  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  getSnapshot = () => this.snapshot;

  /** Asks, unless the same question is being answered. */
  start(options, calls) {
    const isRunning = this.#stream !== null && this.#stream.state !== 'closed';
    if (isRunning && this.#query === options.query) return;
    this.#stream?.close();
    this.#query = options.query;
    this.#stream = this.#open(options, calls);
  }

  async stop() {
    return (await this.#stream?.stop()) ?? {};
  }

  /** The component is there: also a second time, as StrictMode has it. */
  arrive() {
    clearTimeout(this.#leaving);
  }

  /** The component goes. If it is back at once, nothing happens. */
  leave() {
    this.#leaving = setTimeout(() => this.#stream?.close());
  }

  #open({ query, url = ROUTE, body, headers, silenceThreshold, maxReconnectAttempts, reconnectDelay }, calls) {
    const stream = openStream(url, {
      method: 'POST',
      body: JSON.stringify({ ...body, query }),
      headers,
      coalesce: 'frame',
      silence: silenceThreshold ?? 'auto',
      retry: { min: reconnectDelay, maxAttempts: maxReconnectAttempts },
    });
    const isCurrent = () => this.#stream === stream;
    this.#set({ ...IDLE, status: 'submitted' });
    stream.addEventListener('statechange', () => isCurrent() && this.#follow(stream));
    stream.addEventListener('events', ({ events }) => {
      if (!isCurrent()) return;
      for (const event of events) tell(event, calls());
      this.#follow(stream);
    });
    stream.addEventListener('error', ({ error }) => isCurrent() && calls().onError?.(error));
    return stream;
  }

  #follow(stream) {
    this.#set({
      status: statusOf(stream),
      isConnected: stream.state === 'open',
      isReconnecting: stream.state === 'reconnecting' || stream.state === 'offline',
      reconnectAttempts: stream.metrics.reconnects,
      lastMessageTime: stream.lastMessageTime,
      traceId: stream.traceId,
    });
  }

  #set(snapshot) {
    this.snapshot = snapshot;
    for (const listener of this.#listeners) listener();
  }
}

function statusOf(stream) {
  if (stream.state === 'closed') return stream.outcome === 'failed' ? 'error' : 'ready';
  return stream.metrics.events > 0 || stream.state === 'open' ? 'streaming' : 'submitted';
}

function tell(event, { onContent, onComplete, onHeartbeat }) {
  if (event.name === 'content_chunk') onContent?.(event.json().content, event.json());
  // In place of all that came before: the single events are no longer kept.
  else if (event.name === 'snapshot') onContent?.(event.json().text, { ...event.json(), replace: true });
  else if (event.name === 'heartbeat') onHeartbeat?.(event.json());
  else if (event.name === 'complete') onComplete?.(event.json());
}

/**
 * Asks the typed route, and tells how it goes.
 *
 * Times are milliseconds. `onContent(text, data)`: with `data.replace`, in place of all before.
 */
export function useSSEStream(options) {
  const [session] = useState(() => new Session());
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  useEffect(() => {
    session.arrive();
    return () => session.leave();
  }, [session]);
  const start = useCallback(
    (more) => session.start({ ...latest.current, ...asOptions(more) }, () => latest.current),
    [session],
  );
  const stop = useCallback(() => session.stop(), [session]);
  const snapshot = useSyncExternalStore(session.subscribe, session.getSnapshot, () => IDLE);
  return { start, stop, ...snapshot };
}

/** `start` is often a click's handler: then what it is given is an event, and no options. */
function asOptions(more) {
  return typeof more?.query === 'string' ? { query: more.query } : {};
}
