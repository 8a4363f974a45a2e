// The playground: asks on the typed route with the browser's own EventSource and shows what comes.

const ROUTE = '/api/v2/chat-stream';
const MAX_EVENTS = 200;
const STATES = {
  idle: 'Ready',
  connecting: 'Connecting…',
  open: 'Streaming',
  reconnecting: 'Connection lost, trying again…',
  completed: 'Complete',
  stopped: 'Stopped',
  failed: 'Failed',
};

const $ = (id) => document.getElementById(id);
let source = null;
let asked = 0;
let clock = null;

$('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  ask($('question').value.trim());
});
$('stop').addEventListener('click', () => finish('stopped'));
$('copy').addEventListener('click', () => navigator.clipboard.writeText($('trace-id').textContent));

function ask(question) {
  if (!question) return;
  reset();
  asked = performance.now();
  show('connecting');
  clock = setInterval(showUptime, 250);
  source = new EventSource(`${ROUTE}?query=${encodeURIComponent(question)}`);
  source.addEventListener('open', () => show('open'));
  source.addEventListener('start', onStart);
  source.addEventListener('content_chunk', onChunk);
  source.addEventListener('heartbeat', onHeartbeat);
  source.addEventListener('complete', onComplete);
  source.addEventListener('error', onError);
}

function onStart(event) {
  const data = read(event);
  $('stream-id').textContent = data.stream_id;
  $('trace-id').textContent = data.trace_id;
  $('copy').disabled = false;
}

function onChunk(event) {
  const data = read(event);
  if ($('first-token').textContent === '–') {
    $('first-token').textContent = `${Math.round(performance.now() - asked)} ms`;
  }
  $('answer').append(data.content);
  $('chunks').textContent = data.index + 1;
}

function onHeartbeat(event) {
  const data = read(event);
  $('heartbeats').textContent = data.heartbeat_count;
  $('tokens').textContent = data.total_tokens;
}

function onComplete(event) {
  const data = read(event);
  $('tokens').textContent = data.total_tokens;
  $('chunks').textContent = data.total_chunks;
  showSources(data.sources ?? []);
  finish(data.reason === 'user_requested' ? 'stopped' : 'completed');
}

// EventSource calls its own troubles `error` as well; those have no data.
function onError(event) {
  if (event.data !== undefined) {
    fail(read(event).message);
  } else if (source?.readyState === EventSource.CLOSED) {
    fail('The gateway refused the question. Streaming may be off, or the rate limit reached.');
  } else {
    show('reconnecting');
  }
}

function showSources(sources) {
  for (const item of sources) {
    const entry = document.createElement('li');
    entry.textContent = typeof item === 'string' ? item : [item.title, item.url].filter(Boolean).join(' — ');
    $('sources').append(entry);
  }
  $('sources').hidden = sources.length === 0;
}

function fail(message) {
  $('error').textContent = message;
  $('error').hidden = false;
  finish('failed');
}

function finish(state) {
  source?.close();
  source = null;
  clearInterval(clock);
  showUptime();
  show(state);
}

function show(state) {
  $('state').dataset.state = state;
  if ($('state').textContent !== STATES[state]) $('state').textContent = STATES[state];
  $('stop').disabled = source === null && state !== 'connecting';
}

function showUptime() {
  $('uptime').textContent = `${((performance.now() - asked) / 1000).toFixed(1)} s`;
}

function reset() {
  source?.close();
  source = null;
  clearInterval(clock);
  for (const id of ['answer', 'events', 'sources']) $(id).replaceChildren();
  for (const id of ['first-token', 'stream-id', 'trace-id']) $(id).textContent = '–';
  for (const id of ['chunks', 'tokens', 'heartbeats']) $(id).textContent = '0';
  $('error').hidden = true;
  $('sources').hidden = true;
  $('copy').disabled = true;
}

function read(event) {
  const list = $('events');
  list.append(`${event.lastEventId || '–'}  ${event.type}  ${event.data}\n`);
  while (list.childNodes.length > MAX_EVENTS) list.firstChild.remove();
  return JSON.parse(event.data);
}
