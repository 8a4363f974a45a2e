// The playground: asks on the typed route and shows what comes, also after the connection was lost
// and after the page was loaded again.

import { Connection } from './playground-connection.js';
import { DebugPanel } from './playground-debug.js';
import { advise } from './sluice-advice.js';
import { count, duration } from './words.js';

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
let connection = null;
let stream = null;
let asked = 0;
let clock = null;
let endsAt = null;
let isResumed = false;
let isStopping = false;

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
  leave();
  connection = new Connection(headers());
  follow(connection.ask(question), question);
}

/** After a reload: the answer that was under way is read again, from its beginning. */
function goOn() {
  connection = new Connection(headers());
  const kept = connection.goOn();
  if (kept === null) return;
  $('question').value = kept.question;
  follow(kept.stream, kept.question, true);
  note('The page was loaded again; the answer is read again and goes on.');
}

async function follow(begun, question, isAgain = false) {
  reset();
  stream = begun;
  isResumed = isAgain;
  $('asked').textContent = question;
  $('asked').hidden = false;
  show('connecting');
  clock = setInterval(tick, 250);
  begun.addEventListener('statechange', ({ state }) => begun === stream && !isStopping && showConnection(state));
  begun.addEventListener('open', () => begun === stream && opened());
  try {
    for await (const event of begun) if (begun === stream) receive(event);
    if (begun === stream) finish(endingOf(begun));
  } catch (error) {
    if (begun === stream) fail(error, isAgain);
  }
}

function endingOf({ outcome, reason }) {
  return outcome === 'cancelled' ? 'stopped' : ENDINGS[reason ?? 'completed'] ?? 'stopped';
}

function headers() {
  const chosen = {
    Authorization: $('credential').value && `Bearer ${$('credential').value}`,
    'X-Performance-Mode': $('mode').value,
    'X-Stream-On-Disconnect': $('leaving').value,
  };
  return Object.fromEntries(Object.entries(chosen).filter(([, value]) => value));
}

function opened() {
  if ($('trace-id').textContent === '–') showTrace(stream.traceId);
  if (stream.metrics.reconnects) note('The connection is back. Nothing was lost, nothing came twice.');
}

function receive(event) {
  debug.add(event);
  const data = event.json();
  if (event.name === 'start') onStart(data);
  else if (event.name === 'content_chunk') onChunk(data);
  else if (event.name === 'snapshot') $('answer').textContent = data.text;
  else if (event.name === 'heartbeat') onHeartbeat(data);
  else if (event.name === 'complete') onComplete(data);
}

function onStart(data) {
  showTrace(data.trace_id);
  $('stream-id').textContent = data.stream_id;
  if (data.max_duration) endsAt = asked + data.max_duration * 1000;
}

function onChunk(data) {
  if (!isResumed && $('first-token').textContent === '–') $('first-token').textContent = duration(performance.now() - asked);
  const answer = $('answer');
  const isAtEnd = answer.scrollTop + answer.clientHeight >= answer.scrollHeight - 40;
  answer.append(data.content);
  if ($('state').dataset.state === 'waiting') show('open');
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
  if (data.reason === 'duration_cap') note('The answer was longer than the gateway lets one take.');
}

async function stop() {
  const stopping = stream;
  isStopping = true;
  show('stopping');
  try {
    await stopping.stop();
  } catch (error) {
    if (stopping !== stream) return;
    isStopping = false;
    showConnection(stopping.state);
    note(`It couldn’t be stopped: ${error.message}`);
  }
}

function cut() {
  note('Your connection is cut. The gateway goes on reading the backend meanwhile.');
  connection.cut();
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

function fail(error, isAgain) {
  if (error.status === 404 && isAgain) {
    reset();
    $('asked').hidden = true;
    connection.forget();
    note('The earlier answer isn’t kept any more.');
    show('idle');
    return;
  }
  showError(error);
  showTrace(connection.traceId);
  finish('failed');
}

/** What to tell anybody, and for whoever runs it the gateway's own words. */
function showError(error) {
  const advice = advise(error.code);
  const details = document.createElement('small');
  details.textContent = error.message ? `${error.message} (${error.code})` : error.code;
  $('error').replaceChildren(`${advice.says} ${advice.do}`, details);
  $('error').hidden = false;
}

function finish(state) {
  clearInterval(clock);
  tick();
  stream = null;
  $('left').textContent = '–';
  show(state);
}

function showConnection(state) {
  if (state === 'reconnecting') debug.markLost();
  if (state === 'open') show($('answer').textContent ? 'open' : 'waiting');
  else if (state in STATES) show(state);
}

function show(state) {
  const [text, tone] = STATES[state];
  const isRunning = RUNNING.has(state);
  Object.assign($('state').dataset, { state, tone });
  if ($('state').textContent !== text) $('state').textContent = text;
  keepFocus(() => {
    $('stop').disabled = !isRunning || state === 'stopping';
    // A connection may live on for a while after the network has gone.
    $('cut').disabled = !['open', 'waiting', 'offline'].includes(state);
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
  $('heard').textContent = stream?.lastMessageTime ? ago(Date.now() - stream.lastMessageTime) : '–';
  if (stream) $('reconnects').textContent = count(stream.metrics.reconnects);
  $('left').textContent = endsAt === null ? '–' : duration(Math.max(0, endsAt - now));
  debug.draw();
}

function ago(ms) {
  return ms < 1000 ? 'just now' : `${duration(Math.round(ms / 100) * 100)} ago`;
}

function leave() {
  const left = stream;
  stream = null;
  left?.close();
}

function reset() {
  clearInterval(clock);
  stream = null;
  isStopping = false;
  debug.reset();
  asked = performance.now();
  endsAt = null;
  for (const id of ['answer', 'sources']) $(id).replaceChildren();
  for (const id of ['first-token', 'tokens', 'stream-id', 'trace-id', 'heard', 'left', 'uptime']) $(id).textContent = '–';
  for (const id of ['chunks', 'heartbeats', 'reconnects']) $(id).textContent = '0';
  $('error').hidden = $('sources').hidden = true;
  $('copy').disabled = true;
  note('');
}

function note(text) {
  $('note').textContent = text;
}
