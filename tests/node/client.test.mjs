// The parts of the browser client that need no browser.
import assert from 'node:assert/strict';
import test from 'node:test';

const STATIC = new URL('../../gateway/static/', import.meta.url);
const { Cursor, EventParser, StreamError, isHeartbeat, isTerminal } = await import(`${STATIC}sluice-parser.js`);
const { Pause, Retry, Silence, retryAfterMs } = await import(`${STATIC}sluice-patience.js`);
const { Queue } = await import(`${STATIC}sluice-delivery.js`);
const { openStream } = await import(`${STATIC}sluice.js`);

const bytes = (text) => new TextEncoder().encode(text);
const headers = (values = {}) => new Headers(values);

test('an event over the limit is an error, however it comes', () => {
  const line = new EventParser({ maxChars: 100 });
  assert.throws(() => line.push(bytes(`data: ${'x'.repeat(200)}`)), { code: 'event_too_large' });
  const lines = new EventParser({ maxChars: 100 });
  assert.throws(() => lines.push(bytes('data: xxxxxxxxxx\n'.repeat(20))), { code: 'event_too_large' });
});

test('many events under the limit are none', () => {
  const parser = new EventParser({ maxChars: 100 });
  assert.equal(parser.push(bytes(`data: ${'x'.repeat(80)}\n\n`.repeat(20))).length, 20);
});

test('comments are counted and are no events', () => {
  const parser = new EventParser();
  assert.deepEqual(parser.push(bytes(':\n: ping\n\n')), []);
  assert.equal(parser.comments, 2);
});

test('the id of before stands until another comes', () => {
  const parser = new EventParser({ lastEventId: 's.4' });
  const [plain, own] = parser.push(bytes('data: a\n\nid: s.5\ndata: b\n\n'));
  assert.deepEqual([plain.id, plain.hasId, own.id, own.hasId], ['s.4', false, 's.5', true]);
});

test('what comes twice is a duplicate, what is missing a gap, and twice the same gap an error', () => {
  const cursor = new Cursor('s.1');
  cursor.attach('s');
  const judge = (id, type = 'message') => cursor.judge({ id, type, hasId: true });
  assert.deepEqual([judge('s.1'), judge('s.2'), judge('s.2'), judge('s.4')], ['duplicate', 'new', 'duplicate', 'gap']);
  assert.equal(cursor.lastEventId, 's.2');
  assert.throws(() => judge('s.4'), { code: 'gap' });
});

test('a snapshot may leap, and ids of others mean nothing', () => {
  const cursor = new Cursor('s.1');
  cursor.attach('s');
  assert.equal(cursor.judge({ id: 's.90', type: 'snapshot', hasId: true }), 'new');
  assert.equal(cursor.judge({ id: 's.91', type: 'message', hasId: true }), 'new');
  const other = new Cursor('');
  other.attach(null);
  assert.deepEqual(['v.9', 'v.3'].map((id) => other.judge({ id, type: 'message', hasId: true })), ['new', 'new']);
});

test('the ends of every dialect are known', () => {
  for (const type of ['complete', 'error', 'message_stop', 'response.completed', 'response.failed']) {
    assert.ok(isTerminal({ type, data: '{}' }), type);
  }
  assert.ok(isTerminal({ type: 'message', data: '[DONE]' }));
  assert.ok(isTerminal({ type: 'message', data: '{"error": {}}' }));
  assert.ok(!isTerminal({ type: 'content_chunk', data: '[DONE]' }));
  assert.ok(isHeartbeat({ type: 'heartbeat', hasId: false }));
  assert.ok(!isHeartbeat({ type: 'heartbeat', hasId: true }));
});

test('a delay is drawn up to the ceiling and is never less than what the server asks for', () => {
  const retry = new Retry({ min: 100, max: 1000 });
  for (let attempt = 1; attempt < 40; attempt += 1) {
    const delay = retry.delay(attempt, null, null);
    assert.ok(delay >= 0 && delay <= Math.min(1000, 100 * 2 ** (attempt - 1)), `${attempt}: ${delay}`);
  }
  assert.ok(retry.delay(1, 5000, null) >= 5000);
  assert.ok(retry.delay(1, 0, 7000) >= 7000);
  assert.ok(retry.delay(1, 10 ** 9, null) <= 60_000, 'a retry of eleven days is not believed');
});

test('what may be tried again', () => {
  const retry = new Retry();
  const accepted = [408, 425, 429, 500, 502, 503].filter((status) => retry.accepts(status, null));
  assert.equal(accepted.length, 6);
  for (const status of [400, 401, 403, 404, 409, 410, 415, 422]) assert.ok(!retry.accepts(status, null), status);
  assert.ok(retry.accepts(409, 1000));
  assert.ok(!retry.accepts(503, 301_000));
});

test('Retry-After is a number or a date', () => {
  assert.equal(retryAfterMs('7'), 7000);
  assert.equal(retryAfterMs(null), null);
  assert.equal(retryAfterMs('soon'), null);
  assert.equal(retryAfterMs('Thu, 01 Jan 1970 00:00:00 GMT'), 0);
});

test('silence is told from the longest interval of heartbeats alone', () => {
  const silence = new Silence('auto');
  assert.equal(silence.limit, 60_000);
  silence.connected(headers({ 'X-Silence-Threshold': '15' }));
  assert.equal(silence.limit, 15_000);
  for (const [at, isBeat] of [[0, true], [6000, true], [6100, false], [6200, true], [6300, true]]) {
    silence.heard(at, isBeat);
  }
  assert.equal(silence.limit, 15_000);
  silence.heard(26_300, true);
  assert.equal(silence.limit, 50_000);
  assert.equal(new Silence(0).limit, Infinity);
  assert.equal(new Silence(300).limit, 300);
});

test('a pause can be ended early', async () => {
  const pause = new Pause();
  const waiting = pause.wait(Infinity);
  pause.end();
  await waiting;
});

test('a queue is full until half of it was taken', async () => {
  const queue = new Queue();
  for (let n = 0; n < 256; n += 1) queue.push(n);
  let hasRoom = false;
  const room = queue.room.then(() => { hasRoom = true; });
  for (let n = 0; n < 128; n += 1) assert.equal((await queue.next()).value, n);
  assert.equal(hasRoom, false);
  await queue.next();
  await room;
});

test('a queue gives what it holds before it fails, and then is over', async () => {
  const queue = new Queue();
  queue.push(1);
  queue.end(new StreamError('gap', 'x'));
  assert.equal((await queue.next()).value, 1);
  await assert.rejects(queue.next(), { code: 'gap' });
  assert.equal((await queue.next()).done, true);
});

test('it runs without a page, as for server-side rendering and scripts', async () => {
  const answer = 'id: s.1\nevent: content_chunk\ndata: {"content":"hi"}\n\nid: s.2\nevent: complete\ndata: {"reason":"completed"}\n\n';
  const fetch = async () => new Response(answer, { headers: { 'Content-Type': 'text/event-stream', 'X-Stream-Id': 's' } });
  const stream = openStream('http://gateway.example/ask', { fetch });
  const names = [];
  for await (const event of stream) names.push(event.name);
  assert.deepEqual(names, ['content_chunk', 'complete']);
  const { outcome, reason, text, lastEventId } = await stream.finished;
  assert.deepEqual([outcome, reason, text, lastEventId], ['completed', 'completed', 'hi', 's.2']);
});
