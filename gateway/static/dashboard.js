// The dashboard: signs in with the admin token, follows the gateway and shows what it tells.

import { Chart } from './dashboard-chart.js';
import { Controls } from './dashboard-controls.js';
import { ask, follow } from './dashboard-live.js';
import { showParts } from './dashboard-parts.js';
import { StreamTable } from './dashboard-streams.js';
import { isSure, unask } from './dashboard-sure.js';
import { count, duration, plural } from './words.js';

const KEPT = 'sluice-admin-token';
const HOUR_MS = 3_600_000;
const SAID_MS = 6000;
const STOP = {
  title: 'Stop this stream?',
  text: 'The backend’s connection is closed. Its reader keeps what has come and sees the reason “operator”.',
  yes: 'Stop it',
  no: 'Let it run',
};
const LINKS = {
  out: ['Signed out', 'quiet'],
  connecting: ['Connecting…', 'busy'],
  live: ['Live', 'good'],
  lost: ['Connection lost, trying again…', 'bad'],
  refused: ['Refused', 'bad'],
};

const $ = (id) => document.getElementById(id);
const streams = new StreamTable($('streams').tBodies[0], stop);
const perMinute = (name) => (point) => (point[name] * 60) / step;
const shares = (name) =>
  ['p50', 'p95', 'p99'].map((share) => ({ name: share, of: (point) => point[name]?.[share] ?? null }));
const charts = [
  { title: 'Streams now', filled: true, say: count, series: [{ name: 'running', of: (point) => point.active }] },
  {
    title: 'Streams per minute',
    say: count,
    series: ['started', 'failed', 'ended'].map((name) => ({ name, of: perMinute(name) })),
  },
  { title: 'First token', say: duration, series: shares('first_token') },
  { title: 'Between events', say: duration, series: shares('gap') },
  { title: 'Events per second', filled: true, say: count, series: [{ name: 'events', of: (point) => point.events / step }] },
  { title: 'Over the rate limit, per minute', filled: true, say: count, series: [{ name: 'refused', of: perMinute('limited') }] },
].map((chart) => new Chart($('charts'), chart));

const controls = new Controls(() => token, say);

let token = null;
let silence = null;
let session = null;
let step = 5;
let points = [];
let latest = null;

$('login').addEventListener('submit', (event) => {
  event.preventDefault();
  signIn($('token').value.trim());
});
$('leave').addEventListener('click', () => signOut('out'));
$('range').addEventListener('change', showCharts);

if (sessionStorage.getItem(KEPT)) signIn(sessionStorage.getItem(KEPT));
else signOut('out');

function signIn(given) {
  token = given;
  session?.abort();
  session = new AbortController();
  $('refused').hidden = true;
  follow(token, { event: receive, state: showLink }, session.signal);
}

function signOut(state) {
  session?.abort();
  session = token = latest = null;
  points = [];
  streams.clear();
  sessionStorage.removeItem(KEPT);
  unask();
  $('token').value = '';
  $('board').hidden = $('leave').hidden = true;
  $('login').hidden = false;
  showLink(state);
  $('token').focus();
}

function showLink(state) {
  if (state === 'refused' && token !== null) {
    signOut('out');
    $('refused').textContent = 'The gateway doesn’t take this token.';
    $('refused').hidden = false;
    return;
  }
  const [text, tone] = LINKS[state];
  if ($('link').textContent !== text) $('link').textContent = text;
  $('link').dataset.tone = tone;
}

function receive(name, data) {
  if (name === 'history') {
    step = data.step_s;
    points = data.points;
    sessionStorage.setItem(KEPT, token);
    $('login').hidden = true;
    $('board').hidden = $('leave').hidden = false;
  } else if (name === 'overview') {
    latest = data;
    addPoint(data.point);
    showTiles(data);
    showParts(data);
    controls.show(data.controls);
    streams.show(data.streams.rows);
    showStreamCount(data.streams);
  }
}

function addPoint(point) {
  const isNew = point !== null && point.at > (points.at(-1)?.at ?? 0);
  if (isNew) points.push(point);
  points = points.filter(({ at }) => at > latest.at - HOUR_MS);
  if (isNew || !charts[0].points.length) showCharts();
}

function showCharts() {
  if (latest === null) return;
  const range = Number($('range').querySelector('input:checked').value);
  for (const chart of charts) chart.show(points, latest.at, range);
}

function showTiles(data) {
  const limit = data.health.sessions.limit;
  const hour = sum(points, 'started', 'ended', 'failed', 'limited');
  const rate = data.streams.rows.reduce((total, row) => total + row.rate, 0);
  tile('active', count(data.streams.total), limit ? `of ${count(limit)} at most` : 'no limit is set');
  tile('first', duration(data.first_token?.p95), `p50 ${duration(data.first_token?.p50)}, 1 minute`);
  tile('gap', duration(data.gap?.p95), `p50 ${duration(data.gap?.p50)}, 1 minute`);
  tile('events', `${count(rate)}`, 'per second, to all streams');
  tile('failed', hour.ended ? `${count((100 * hour.failed) / hour.ended)} %` : '–', `${count(hour.failed)} of ${count(hour.ended)} in the last hour`);
  tile('limited', count(hour.limited), 'requests in the last hour');
}

function tile(name, value, more) {
  $(`tile-${name}`).textContent = value;
  $(`tile-${name}-more`).textContent = more;
}

function sum(from, ...names) {
  return Object.fromEntries(names.map((name) => [name, from.reduce((total, point) => total + point[name], 0)]));
}

function showStreamCount({ total, rows }) {
  $('streams-none').hidden = total > 0;
  $('streams').hidden = total === 0;
  $('streams-more').textContent = total > rows.length ? `The ${count(rows.length)} oldest of ${count(total)}` : plural(total, 'stream');
}

async function stop(id) {
  if (!(await isSure({ ...STOP, about: id }))) return;
  try {
    const { reason } = await ask(token, 'DELETE', `/api/admin/streams/${encodeURIComponent(id)}`);
    say(`Stream ${id} has ended: ${reason}.`);
  } catch (error) {
    say(error.message);
  }
}

/** Tells how something went, for some seconds. */
function say(text) {
  $('said').textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => ($('said').textContent = ''), SAID_MS);
}
