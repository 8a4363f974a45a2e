// Small line charts in SVG. The pointer or the arrow keys read a moment; a gap in the values is a
// gap in the line.

const SVG = 'http://www.w3.org/2000/svg';
const HEIGHT = 144;
const LEFT = 52;
const RIGHT = 6;
const TOP = 8;
const BOTTOM = 20;

export class Chart {
  /** `series` are `{name, of}`, `of(point)` a number or null; `say(value)` puts it in words. */
  constructor(host, { title, series, say, filled = false }) {
    this.title = title;
    this.series = series;
    this.say = say;
    this.filled = filled;
    this.points = [];
    this.picked = null;
    this._build(host);
  }

  /** Shows the points, oldest first, that are at most `rangeS` seconds older than `now` (ms). */
  show(points, now, rangeS) {
    this.from = now - rangeS * 1000;
    this.now = now;
    this.points = points.filter((point) => point.at >= this.from);
    this._draw();
  }

  _build(host) {
    const figure = make('figure', { class: 'card chart' });
    const caption = make('figcaption');
    const heading = make('h3');
    heading.textContent = this.title;
    this.when = make('span', { class: 'when' });
    this.legend = make('ul', { class: 'legend' });
    caption.append(heading, this.when, this.legend);
    this.values = this.series.map(({ name }) => {
      const item = make('li');
      const text = make('span');
      item.append(text);
      this.legend.append(item);
      return { name, text };
    });
    this.svg = draw('svg', { role: 'img', tabindex: 0 });
    figure.append(caption, this.svg);
    host.append(figure);
    this.svg.addEventListener('pointermove', (event) => this._pick(this._nearest(event.offsetX)));
    this.svg.addEventListener('pointerleave', () => this._pick(null));
    this.svg.addEventListener('blur', () => this._pick(null));
    this.svg.addEventListener('keydown', (event) => this._step(event));
    new ResizeObserver(() => this._draw()).observe(this.svg);
  }

  _draw() {
    this.width = Math.max(this.svg.clientWidth, 120);
    this.top = ceiling(Math.max(0, ...this._values()));
    this.svg.setAttribute('viewBox', `0 0 ${this.width} ${HEIGHT}`);
    this.cursor = draw('line', { class: 'cursor', y1: TOP, y2: HEIGHT - BOTTOM, visibility: 'hidden' });
    this.svg.replaceChildren(...this._grid(), ...this._times(), ...this._lines(), this.cursor);
    this._pick(this.picked !== null && this.points.includes(this.picked) ? this.picked : null);
    this.svg.setAttribute('aria-label', this._summary());
  }

  _values() {
    return this.series.flatMap(({ of }) => this.points.map(of).filter((value) => value !== null));
  }

  _grid() {
    return [0, 0.5, 1].flatMap((share) => {
      const y = this._y(share * this.top);
      const label = draw('text', { x: LEFT - 8, y: y + 4, 'text-anchor': 'end' });
      label.textContent = this.say(share * this.top);
      return [draw('line', { class: 'grid', x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }), label];
    });
  }

  _times() {
    const ends = [[this.from, 'start', LEFT], [this.now, 'end', this.width - RIGHT]];
    return ends.map(([at, anchor, x]) => {
      const label = draw('text', { x, y: HEIGHT - 4, 'text-anchor': anchor });
      label.textContent = clock(at);
      return label;
    });
  }

  _lines() {
    return this.series.flatMap(({ of }, index) => {
      const runs = this._runs(of);
      const line = runs.map((run) => `M${run.join('L')}`).join('');
      const path = draw('path', { class: `line n${index}`, d: line });
      if (!this.filled) return [path];
      const base = this._y(0);
      const area = runs.map((run) => `M${run[0][0]},${base}L${run.join('L')}L${run.at(-1)[0]},${base}Z`);
      return [draw('path', { class: 'area', d: area.join('') }), path];
    });
  }

  /** Coordinates, cut where a value is missing. A lone value becomes a dot's width. */
  _runs(of) {
    const runs = [];
    let run = null;
    for (const point of this.points) {
      const value = of(point);
      if (value === null) { run = null; continue; }
      if (run === null) runs.push((run = []));
      run.push([round(this._x(point.at)), round(this._y(value))]);
    }
    for (const each of runs) if (each.length === 1) each.push([each[0][0] + 1, each[0][1]]);
    return runs;
  }

  _x(at) {
    return LEFT + ((at - this.from) / (this.now - this.from)) * (this.width - LEFT - RIGHT);
  }

  _y(value) {
    return TOP + (1 - value / this.top) * (HEIGHT - TOP - BOTTOM);
  }

  _nearest(x) {
    const distance = (point) => Math.abs(this._x(point.at) - x);
    return this.points.reduce((best, point) => (best && distance(best) <= distance(point) ? best : point), null);
  }

  _step(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (way === undefined || !this.points.length) return;
    event.preventDefault();
    const at = this.picked === null ? this.points.length : this.points.indexOf(this.picked);
    this._pick(this.points[Math.min(this.points.length - 1, Math.max(0, at + way))]);
    this.svg.setAttribute('aria-label', this._summary());
  }

  _pick(point) {
    this.picked = point;
    const shown = point ?? this.points.at(-1);
    for (const [index, { name, text }] of this.values.entries()) {
      text.textContent = `${name} ${this._said(index, shown)}`;
    }
    this.when.textContent = point ? clock(point.at, true) : '';
    this.cursor.setAttribute('visibility', point ? 'visible' : 'hidden');
    if (point) {
      const x = this._x(point.at);
      this.cursor.setAttribute('x1', x);
      this.cursor.setAttribute('x2', x);
    }
  }

  _said(index, point) {
    const value = point ? this.series[index].of(point) : null;
    return value === null ? '–' : this.say(value);
  }

  _summary() {
    const shown = this.picked ?? this.points.at(-1);
    const values = this.series.map(({ name }, index) => `${name} ${this._said(index, shown)}`);
    const when = this.picked ? clock(this.picked.at, true) : 'now';
    return `${this.title}, ${when}: ${values.join(', ')}`;
  }
}

/** The next round number that nothing exceeds. */
function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

function clock(at, withSeconds = false) {
  const options = { hour: '2-digit', minute: '2-digit' };
  return new Date(at).toLocaleTimeString([], withSeconds ? { ...options, second: '2-digit' } : options);
}

function round(value) {
  return Math.round(value * 10) / 10;
}

function make(name, attributes = {}) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function draw(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
