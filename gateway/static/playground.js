// The playground: asks on the typed route and shows what comes, also after the connection was lost
// and after the page was loaded again.

import { DebugPanel } from './playground-debug.js';
import { AnswerStream, Refused } from './playground-stream.js';
import { count, duration } from './words.js';

const KEPT = 'sluice-playground';
const STATES = {
  idle: ['Ready', 'quiet'],
  connecting: ['Connecting…', 'busy'],
  waiting: ['Waiting for the first token…', 'busy'],
  open: ['Streaming', 'good'],
  reconnecting: ['Connection lost, going on…', 'busy'],
  offline: ['Offline, waiting for the network…', 'bad'],
  stopping: ['Stopping…', 'busy'],
  completed: ['Complete', 'good'],
  incomplete: ['Ended early', 'busy'],
  stopped: ['Stopped', 'quiet'],
  failed: ['Failed', 'bad'],
};
const RUNNING = new Set(['connecting', 'waiting', 'open', 'reconnecting', 'offline', 'stopping']);
const ENDINGS = { completed: 'completed', incomplete: 'incomplete', duration_cap: 'incomplete' };

const $ = (id) => document.getElementById(id);
const debug = new DebugPanel($('events'), $('arrivals'), $('events-count'));
let stream = null;
let asked = 0;
let heard = 0;
let reconnects = 0;
let clock = null;
let endsAt = null;
let isResumed = false;

$('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  ask($('question').value.trim());
});
$('question').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $('ask').requestSubmit();
});
$('stop').addEventListener('click', stop);
$('cut').addEventListener('click', cut);
$('copy').addEventListener('click', copyTrace);

goOn();

function ask(question) {
  if (!question) return;
  begin(question, (made) => made.ask({ query: question }));
}

/** After a reload: the answer that was under way is read again, from its beginning. */
function goOn() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? 'null');
  if (kept === null) return;
  $('question').value = kept.question;
  note('The page was loaded again; the answer is read again and goes on.');
  begin(kept.question, (made) => made.resume(kept.id), true);
}

async function begin(question, run, isAgain = false) {
  reset(isAgain);
  isResumed = isAgain;
  $('asked').textContent = question;
  $('asked').hidden = false;
  const mine = (stream = new AnswerStream({ state: showState, event: receive, opened }, headers()));
  clock = setInterval(tick, 250);
  try {
    await run(mine);
    // 204: all of it was seen before, and the end as well.
    if (mine === stream && RUNNING.has($('state').dataset.state)) finish('completed');
  } catch (error) {
    if (mine === stream) fail(error, isAgain);
  }
}

function headers() {
  const chosen = {
    Authorization: $('credential').value && `Bearer ${$('credential').value}`,
    'X-Performance-Mode': $('mode').value,
    'X-Stream-On-Disconnect': $('leaving').value,
  };
  return Object.fromEntries(Object.entries(chosen).filter(([, value]) => value));
}

function opened(response) {
  const id = response.get('X-Stream-Id');
  $('stream-id').textContent = id;
  showTrace($('trace-id').textContent === '–' ? response.get('X-Trace-ID') : null);
  sessionStorage.setItem(KEPT, JSON.stringify({ id, question: $('asked').textContent }));
  if (reconnects) note('The connection is back. Nothing was lost, nothing came twice.');
}

function receive(event) {
  debug.add(event);
  heard = performance.now();
  const { data } = event;
  if (event.name === 'start') onStart(data);
  else if (event.name === 'content_chunk') onChunk(data);
  else if (event.name === 'snapshot') $('answer').textContent = data.text;
  else if (event.name === 'heartbeat') onHeartbeat(data);
  else if (event.name === 'complete') onComplete(data);
  else if (event.name === 'error') fail(new Error(data.message));
}

function onStart(data) {
  showTrace(data.trace_id);
  if (data.max_duration) endsAt = asked + data.max_duration * 1000;
}

function onChunk(data) {
  if (!isResumed && $('first-token').textContent === '–') $('first-token').textContent = duration(performance.now() - asked);
  const answer = $('answer');
  const isAtEnd = answer.scrollTop + answer.clientHeight >= answer.scrollHeight - 40;
  answer.append(data.content);
  if (isAtEnd) answer.scrollTop = answer.scrollHeight;
  $('chunks').textContent = count(data.index + 1);
}

function onHeartbeat(data) {
  $('heartbeats').textContent = count(data.heartbeat_count);
  $('tokens').textContent = count(data.total_tokens);
}

function onComplete(data) {
  $('tokens').textContent = count(data.total_tokens);
  $('chunks').textContent = count(data.total_chunks);
  showSources(data.sources ?? []);
  finish(ENDINGS[data.reason] ?? 'stopped');
  if (data.reason === 'duration_cap') note('The answer was longer than the gateway lets one take.');
}

function stop() {
  const stopping = stream;
  showState('stopping');
  stopping.stop().catch((error) => stopping === stream && fail(error));
}

function cut() {
  note('Your connection is cut. The gateway goes on reading the backend meanwhile.');
  stream.cut();
}

async function copyTrace() {
  try {
    await navigator.clipboard.writeText($('trace-id').textContent);
    note('The trace id is copied.');
  } catch {
    getSelection().selectAllChildren($('trace-id'));
    note('The trace id is selected; copy it from there.');
  }
}

function showTrace(id) {
  if (!id) return;
  $('trace-id').textContent = id;
  $('copy').disabled = false;
}

function showSources(sources) {
  for (const item of sources) {
    const entry = document.createElement('li');
    entry.textContent = typeof item === 'string' ? item : [item.title, item.url].filter(Boolean).join(' — ');
    $('sources').append(entry);
  }
  $('sources').hidden = sources.length === 0;
}

function fail(error, isAgain = false) {
  if (error instanceof Refused && error.status === 404 && isAgain) {
    reset();
    $('asked').hidden = true;
    sessionStorage.removeItem(KEPT);
    note('The earlier answer isn’t kept any more.');
    show('idle');
    return;
  }
  $('error').textContent = error instanceof TypeError ? 'The gateway can’t be reached.' : error.message;
  $('error').hidden = false;
  if (error instanceof Refused) showTrace(error.traceId);
  finish('failed');
}

function finish(state) {
  clearInterval(clock);
  tick();
  stream = null;
  $('left').textContent = '–';
  show(state);
}

function showState(state, failures = 0) {
  const before = $('state').dataset.state;
  if (before === 'stopping' && RUNNING.has(state)) return;
  if (state === 'reconnecting' && ['open', 'waiting'].includes(before)) {
    reconnects += 1;
    $('reconnects').textContent = count(reconnects);
    debug.mark('lost', 'the connection');
  } else if (state === 'reconnecting' && failures) {
    debug.mark('retry', `try ${failures + 1}`);
  }
  show(state);
}

function show(state) {
  const [text, tone] = STATES[state];
  const isRunning = RUNNING.has(state);
  Object.assign($('state').dataset, { state, tone });
  if ($('state').textContent !== text) $('state').textContent = text;
  keepFocus(() => {
    $('stop').disabled = !isRunning || state === 'stopping';
    $('cut').disabled = state !== 'open' && state !== 'waiting';
  });
  $('answer').setAttribute('aria-busy', isRunning);
}

/** A button that is switched off loses the focus; then it goes to the question. */
function keepFocus(change) {
  const focused = document.activeElement;
  change();
  if (focused?.disabled) $('question').focus();
}

function tick() {
  const now = performance.now();
  $('uptime').textContent = duration(now - asked);
  $('heard').textContent = heard ? ago(now - heard) : '–';
  $('left').textContent = endsAt === null ? '–' : duration(Math.max(0, endsAt - now));
  debug.draw();
}

function ago(ms) {
  return ms < 1000 ? 'just now' : `${duration(Math.round(ms / 100) * 100)} ago`;
}

function reset(isAgain = false) {
  stream?.close();
  stream = null;
  clearInterval(clock);
  debug.reset();
  asked = performance.now();
  heard = reconnects = 0;
  endsAt = null;
  for (const id of ['answer', 'sources']) $(id).replaceChildren();
  for (const id of ['first-token', 'tokens', 'stream-id', 'trace-id', 'heard', 'left', 'uptime']) $(id).textContent = '–';
  for (const id of ['chunks', 'heartbeats', 'reconnects']) $(id).textContent = '0';
  $('error').hidden = $('sources').hidden = true;
  $('copy').disabled = true;
  if (!isAgain) note('');
}

function note(text) {
  $('note').textContent = text;
}
