// What the gateway tells of itself: state, grade and alerts, endings, its parts, latest failures.

import { bytes, count, duration, plural, words } from './words.js';

const TONES = { ok: 'good', degraded: 'busy', draining: 'bad' };
const GOOD_ENDINGS = new Set(['completed', 'incomplete', 'user_requested', 'custom', 'duration_cap', 'client_gone']);

const $ = (id) => document.getElementById(id);

export function showParts(data) {
  const { health } = data;
  showState(health);
  showAlerts(health.alerts);
  showEndings(data.endings);
  showFacts(data);
  showFaults(health.errors.latest);
}

function showState(health) {
  const text = health.status[0].toUpperCase() + health.status.slice(1);
  if ($('status').textContent !== text) $('status').textContent = text;
  $('status').dataset.tone = TONES[health.status] ?? 'busy';
  $('grade-letter').textContent = health.grade;
  $('grade').dataset.grade = health.grade;
  const streaming = health.streaming_enabled ? `streaming for ${count(health.rollout_percent)} % of users` : 'streaming is off';
  $('about').textContent = `Version ${health.version} · up ${duration(health.uptime_seconds * 1000)} · ${streaming}`;
}

function showAlerts(alerts) {
  $('alerts').hidden = alerts.length === 0;
  keyed($('alerts'), alerts.map((alert) => ({
    key: JSON.stringify(alert),
    make: () => {
      const item = document.createElement('li');
      item.dataset.severity = alert.severity;
      const name = document.createElement('strong');
      name.textContent = `${words(alert.name)}, ${alert.severity}`;
      const measured = alert.threshold ? ` ${count(alert.value)}, over ${count(alert.threshold)}.` : '';
      item.append(name, alert.message, measured);
      return item;
    },
  })));
}

function showEndings(endings) {
  const ordered = Object.entries(endings).sort(([, a], [, b]) => b - a);
  const most = ordered[0]?.[1] ?? 1;
  $('endings-none').hidden = ordered.length > 0;
  keyed($('endings'), ordered.map(([reason, number]) => ({
    key: `${reason} ${number} ${most}`,
    make: () => bar(reason, number, number / most),
  })));
}

function bar(reason, number, share) {
  const item = document.createElement('li');
  item.dataset.tone = reason === 'completed' ? 'good' : GOOD_ENDINGS.has(reason) ? 'quiet' : 'bad';
  const name = document.createElement('span');
  name.textContent = words(reason);
  const value = document.createElement('b');
  value.textContent = count(number);
  const track = document.createElement('span');
  track.className = 'track';
  const fill = document.createElement('i');
  fill.style.width = `${share * 100}%`;
  track.append(fill);
  item.append(name, value, track);
  return item;
}

function showFacts({ health, backend, backend_errors: errors, resumes }) {
  const { store, audit, breaker, buffers, conversations, memory } = health;
  const waiting = [store.queued && `${count(store.queued)} wait`, store.unkept && `${count(store.unkept)} not kept`];
  const facts = [
    ['Backend', breaker.state === 'closed' ? backend : '!Left alone', Object.keys(errors).length ? listed(errors) : 'no errors'],
    ['Store', store.degraded ? '!Away' : 'Keeps up', waiting.filter(Boolean).join(', ')],
    ['Audit log', audit.mode === 'off' ? 'Off' : audit.away ? '!Away' : `On, ${audit.mode}`,
      audit.mode === 'off' ? '' : `${plural(audit.size, 'record')}${audit.waiting ? `, ${count(audit.waiting)} wait` : ''}`],
    ['Buffers', bytes(buffers.used_bytes), buffers.limit_bytes ? `of ${bytes(buffers.limit_bytes)}` : 'no limit'],
    ['Memory', bytes(memory.resident_bytes), grown(memory.growth_bytes)],
    ['Conversations', plural(conversations.active, 'active', 'active'), `${count(conversations.total_created)} since the start`],
    ['Resumes', Object.keys(resumes).length ? listed(resumes) : 'none', ''],
  ];
  keyed($('parts'), facts.map((fact) => ({ key: fact.join('\n'), make: () => part(...fact) })));
}

function grown(by) {
  return `${bytes(Math.abs(by))} ${by < 0 ? 'less' : 'more'} than at the start`;
}

function part(name, value, more) {
  const group = document.createElement('div');
  const term = document.createElement('dt');
  term.textContent = name;
  group.append(term);
  for (const [text, quiet] of [[value, false], [more, true]]) {
    if (!text) continue;
    const detail = document.createElement('dd');
    detail.textContent = text.replace(/^!/, '');
    detail.className = quiet ? 'quiet' : text.startsWith('!') ? 'state' : '';
    if (text.startsWith('!')) detail.dataset.tone = 'bad';
    group.append(detail);
  }
  return group;
}

function listed(counts) {
  return Object.entries(counts).map(([name, number]) => `${count(number)} ${words(name)}`).join(', ');
}

function showFaults(faults) {
  $('faults-none').hidden = faults.length > 0;
  keyed($('faults'), faults.map((fault) => ({
    key: `${fault.at} ${fault.code} ${fault.trace_id}`,
    make: () => {
      const item = document.createElement('li');
      const time = document.createElement('time');
      time.dateTime = fault.at;
      time.textContent = new Date(fault.at).toLocaleTimeString();
      time.className = 'quiet';
      const what = document.createElement('span');
      what.textContent = `${words(fault.code)} (${fault.operation})`;
      item.append(time, what);
      if (fault.trace_id) {
        const trace = document.createElement('span');
        trace.className = 'mono';
        trace.textContent = fault.trace_id;
        item.append(trace);
      }
      return item;
    },
  })));
}

/** Replaces a list's children only where something has changed, so that a screen reader and a
 * selection aren't disturbed every second. */
function keyed(list, entries) {
  const wanted = entries.map(({ key }) => key).join('\0');
  if (list.dataset.key === wanted) return;
  list.dataset.key = wanted;
  list.replaceChildren(...entries.map(({ make }) => make()));
}
