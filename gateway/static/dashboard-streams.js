// The table of the streams that run. A row stays the same element as long as its stream runs, so
// that its button keeps the focus.

import { count, duration } from './words.js';

const TONES = { streaming: 'good', waiting: 'busy', silent: 'busy', paused: 'busy', detached: 'quiet' };
const MEANINGS = {
  streaming: 'The backend is sending.',
  waiting: 'No first token yet.',
  silent: 'The backend has said nothing for some seconds.',
  paused: 'The reader is slower than the backend, which is held back.',
  detached: 'Nobody reads it; it can be resumed.',
};
/** The columns and their classes; a narrow screen hides `more`. */
const COLUMNS = [
  ['state', ''],
  ['id', 'mono'],
  ['owner', 'mono more'],
  ['route', 'more'],
  ['age', 'number'],
  ['first', 'number more'],
  ['events', 'number more'],
  ['tokens', 'number more'],
  ['rate', 'number more'],
  ['readers', 'number more'],
  ['stop', ''],
];

export class StreamTable {
  /** `stop(id)` is called when a row's button is pressed. */
  constructor(body, stop) {
    this.body = body;
    this.stop = stop;
    this.rows = new Map();
  }

  show(streams) {
    const ids = new Set(streams.map(({ id }) => id));
    for (const [id, row] of this.rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      this.rows.delete(id);
    }
    for (const stream of streams) this._update(this.rows.get(stream.id) ?? this._add(stream), stream);
  }

  clear() {
    this.show([]);
  }

  _add({ id, owner, route }) {
    const element = document.createElement('tr');
    const cells = {};
    for (const [name, style] of COLUMNS) {
      cells[name] = element.insertCell();
      cells[name].className = style;
    }
    const state = document.createElement('span');
    state.className = 'state';
    cells.state.append(state);
    cells.state = state;
    cells.id.textContent = id;
    cells.owner.textContent = owner;
    cells.route.textContent = route;
    cells.stop.append(this._button(id));
    this.body.append(element);
    const row = { element, cells };
    this.rows.set(id, row);
    return row;
  }

  _button(id) {
    const button = document.createElement('button');
    Object.assign(button, { type: 'button', className: 'danger small', textContent: 'Stop' });
    button.setAttribute('aria-label', `Stop stream ${id}`);
    button.addEventListener('click', () => this.stop(id));
    return button;
  }

  _update({ cells }, stream) {
    if (cells.state.textContent !== stream.state) {
      cells.state.textContent = stream.state;
      cells.state.dataset.tone = TONES[stream.state];
      cells.state.title = MEANINGS[stream.state];
    }
    cells.age.textContent = duration(stream.age_ms);
    cells.first.textContent = duration(stream.first_token_ms);
    cells.events.textContent = count(stream.chunks);
    cells.tokens.textContent = count(stream.tokens);
    cells.rate.textContent = count(stream.rate);
    cells.readers.textContent = count(stream.readers);
  }
}
