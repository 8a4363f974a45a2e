// What people write against the client's types; the compiler checks it.
import { EventStream, StreamError, openStream, resumeStored, resumeStream } from './sluice.js';
import { useSSEStream } from './sluice-react.js';

async function ask(): Promise<string> {
  const stream: EventStream = openStream('/api/v2/chat-stream', {
    method: 'POST',
    body: JSON.stringify({ query: 'hi' }),
    headers: async () => ({ Authorization: 'Bearer x' }),
    silence: 'auto',
    retry: { min: 500, maxAttempts: Infinity },
    coalesce: 'frame',
    storageKey: 'chat',
  });
  stream.addEventListener('statechange', (event) => console.log(event.state, event.retryIn));
  stream.addEventListener('content_chunk', (event) => console.log(event.json().content.length));
  stream.addEventListener('events', ({ events }) => events.forEach((event) => console.log(event.name)));
  stream.addEventListener('error', ({ error }: { error: StreamError }) => console.log(error.code));
  for await (const event of stream) console.log(event.lastEventId);
  await stream.stop();
  stream.close();
  const { text, outcome } = await stream.finished;
  // @ts-expect-error a stream that failed rejects
  if (outcome === 'failed') return '';
  return text;
}

resumeStream('/api/v2/streams/x', { lastEventId: 'x.1' });
resumeStored('chat', { fromStart: false })?.close();
// @ts-expect-error there is no such mode
openStream('/x', { coalesce: 'second' });

export function useAnswer(query: string) {
  const { start, stop, isConnected, isReconnecting, reconnectAttempts, lastMessageTime, traceId, status } = useSSEStream({
    query,
    onContent: (content, data) => console.log(content.length, 'replace' in data),
    onComplete: ({ total_chunks }) => console.log(total_chunks),
    onError: ({ code }) => console.log(code),
    onHeartbeat: ({ uptime_seconds }) => console.log(uptime_seconds),
    silenceThreshold: 15_000,
    maxReconnectAttempts: 3,
    reconnectDelay: 1000,
  });
  // @ts-expect-error these are all the words for it
  if (status === 'done') return null;
  return { ask, start, stop, isConnected, isReconnecting, reconnectAttempts, lastMessageTime, traceId };
}
