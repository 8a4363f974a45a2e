// The debug panel: the newest raw events, and when they came as a strip of lines.

import { duration } from './words.js';

const SVG = 'http://www.w3.org/2000/svg';
const MAX_EVENTS = 300;
const MAX_LINES = 1500;
const SHORTEST_MS = 5000;
const CLASSES = { heartbeat: 'beat', lost: 'cut' };

export class DebugPanel {
  constructor(list, strip, counter) {
    Object.assign(this, { list, strip, counter });
    this.reset();
  }

  reset() {
    this.started = performance.now();
    this.total = 0;
    this.arrivals = [];
    this.list.replaceChildren();
    this.strip.replaceChildren();
    this.strip.setAttribute('aria-label', 'No event has come yet');
    this.counter.textContent = '';
  }

  /** An event as it came. */
  add({ name, lastEventId, hasId, data }) {
    this.total += 1;
    this._row(hasId ? lastEventId.slice(lastEventId.lastIndexOf('.') + 1) : '–', name, data);
    this._arrive(name);
    this.counter.textContent = `${this.total.toLocaleString('en')} so far`;
  }

  /** The connection was lost. */
  markLost() {
    this._row('', 'lost', 'the connection').className = 'mark';
    this._arrive('lost');
  }

  /** Draws the strip anew; to be called a few times a second at most. */
  draw() {
    const length = Math.max(SHORTEST_MS, performance.now() - this.started);
    this.strip.replaceChildren(...this.arrivals.map(({ at, name }) => {
      const line = document.createElementNS(SVG, 'line');
      const x = (at / length) * 100;
      for (const [key, value] of Object.entries({ x1: x, x2: x, y1: 3, y2: 21 })) line.setAttribute(key, value);
      if (CLASSES[name]) line.setAttribute('class', CLASSES[name]);
      return line;
    }));
    const lost = this.arrivals.filter(({ name }) => name === 'lost').length;
    this.strip.setAttribute('aria-label', `${this.total} events in ${duration(length)}, the connection lost ${lost} times`);
  }

  _arrive(name) {
    this.arrivals.push({ at: performance.now() - this.started, name });
    if (this.arrivals.length > MAX_LINES) this.arrivals.shift();
  }

  _row(...texts) {
    const row = document.createElement('li');
    const time = ((performance.now() - this.started) / 1000).toFixed(3);
    for (const text of [`${time} s`, ...texts]) {
      const cell = document.createElement('span');
      cell.textContent = text;
      row.append(cell);
    }
    const isAtEnd = this.list.scrollTop + this.list.clientHeight >= this.list.scrollHeight - 30;
    this.list.append(row);
    while (this.list.children.length > MAX_EVENTS) this.list.firstElementChild.remove();
    if (isAtEnd) this.list.scrollTop = this.list.scrollHeight;
    return row;
  }
}
