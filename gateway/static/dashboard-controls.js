// What operators change while the gateway runs. A change is sent at once; what the gateway then says
// is what is shown, here and to all others who watch.

import { ask } from './dashboard-live.js';
import { isSure } from './dashboard-sure.js';
import { count, plural } from './words.js';

const PATH = '/api/admin/controls';
const CLEANUP_PATH = '/api/admin/cleanup';
const FIELDS = {
  streaming_enabled: 'checked',
  rollout_percent: 'valueAsNumber',
  performance_mode: 'value',
  debug: 'checked',
};
const EMERGENCY = {
  title: 'Switch streaming off for everybody?',
  text: 'New questions get no stream until you end the emergency: /v1 is a plain proxy, the typed route answers 404. What streams now goes on.',
  yes: 'Switch it off',
  no: 'Leave it',
};
const CLEANUP = {
  title: 'Clean up now?',
  text: 'Streams that nobody reads are ended, though their readers might come back. Expired streams and idle conversations go as well.',
  yes: 'Clean up',
  no: 'Leave it',
};

const $ = (id) => document.getElementById(id);

export class Controls {
  /** `token()` gives the admin token; `say(text)` tells the operator how it went. */
  constructor(token, say) {
    Object.assign(this, { token, say, state: null, sending: 0 });
    for (const [name, property] of Object.entries(FIELDS)) {
      const field = $(`control-${name}`);
      field.addEventListener('change', () => field.reportValidity() && this._change({ [name]: field[property] }));
    }
    $('controls').addEventListener('submit', (event) => event.preventDefault());
    $('emergency').addEventListener('click', () => this._switchEmergency());
    $('calm').addEventListener('click', () => this._change({ emergency: false }));
    $('reset').addEventListener('click', () => this._send('DELETE', undefined, 'All is as the settings say.'));
    $('cleanup').addEventListener('click', () => this._cleanUp());
  }

  /** Shows a snapshot, unless it may be of before a change that is under way. */
  show(state) {
    if (this.sending === 0) this._show(state);
  }

  /** Shows what is in force, but for a field that is being changed. */
  _show(state) {
    this.state = state;
    for (const [name, property] of Object.entries(FIELDS)) {
      const field = $(`control-${name}`);
      const isBusy = field === document.activeElement && property === 'valueAsNumber';
      if (!isBusy && field[property] !== state[name]) field[property] = state[name];
    }
    $('alarm').hidden = !state.emergency;
    $('emergency').disabled = state.emergency;
  }

  async _switchEmergency() {
    if (await isSure(EMERGENCY)) this._change({ emergency: true });
  }

  _change(wanted) {
    return this._send('PATCH', wanted, 'It is changed.');
  }

  async _send(method, wanted, done) {
    this.sending += 1;
    try {
      this._show(await ask(this.token(), method, PATH, wanted));
      this.say(done);
    } catch (error) {
      if (this.state) this._show(this.state);
      this.say(error.message);
    } finally {
      this.sending -= 1;
    }
  }

  async _cleanUp() {
    if (!(await isSure(CLEANUP))) return;
    try {
      const done = await ask(this.token(), 'POST', CLEANUP_PATH);
      const expired = done.expired === null ? 'the store is away' : `${count(done.expired)} expired`;
      this.say(`Cleaned up: ${plural(done.detached, 'stream')} without a reader, ${expired}, ${plural(done.conversations, 'idle conversation')}.`);
    } catch (error) {
      this.say(error.message);
    }
  }
}
