// How long to wait: for the next attempt, and for a sign of life. Times are milliseconds.

const MAX_SERVER_RETRY_MS = 60_000;
const SILENCE_BEFORE_MS = 60_000;
const SILENCE_FACTOR = 2.5;
const SILENCE_LEAST_MS = 10_000;
const SILENCE_MOST_MS = 120_000;

/** Full jitter; `maxAttempts` counts reconnections in a row that brought no event. */
export class Retry {
  constructor({ min = 1000, max = 30_000, maxAttempts = 3, maxRetryAfter = 300_000, heedsRetry = true } = {}) {
    Object.assign(this, { min, max, maxAttempts, maxRetryAfter, heedsRetry });
  }

  allows(attempt) {
    return attempt <= this.maxAttempts;
  }

  /** Milliseconds before attempt number `attempt`, from 1; at least what the server asks for. */
  delay(attempt, retryMs, retryAfterMs) {
    const ceiling = Math.min(this.max, this.min * 2 ** Math.min(attempt - 1, 64));
    const floor = this.heedsRetry ? Math.min(retryMs ?? 0, MAX_SERVER_RETRY_MS) : 0;
    return Math.max(Math.random() * ceiling, floor, retryAfterMs ?? 0);
  }

  /** Whether a refusal with this status may be followed by another attempt. */
  accepts(status, retryAfterMs) {
    if (retryAfterMs !== null && retryAfterMs > this.maxRetryAfter) return false;
    if (status === 409) return retryAfterMs !== null;
    return status === 408 || status === 425 || status === 429 || status >= 500;
  }
}

/** `Retry-After` as a number of seconds or a date (RFC 9110, section 10.2.3); null without one. */
export function retryAfterMs(value) {
  if (!value) return null;
  if (/^[0-9]+$/.test(value)) return Number(value) * 1000;
  const when = Date.parse(value);
  return Number.isNaN(when) ? null : Math.max(0, when - Date.now());
}

/**
 * When a connection counts as dead: after `setting` ms without a byte (0: never), or `auto`.
 *
 * `auto` is 2.5 times the longest interval of two heartbeats with nothing between them, within 10
 * to 120 s; before two were seen, the server's `X-Silence-Threshold`, else 60 s.
 */
export class Silence {
  #fixed;
  #before = SILENCE_BEFORE_MS;
  #lastBeat = null;

  /** The observed interval of heartbeats; 0 before two were seen. */
  interval = 0;

  constructor(setting = 'auto') {
    this.#fixed = setting === 'auto' ? null : setting;
  }

  get limit() {
    if (this.#fixed !== null) return this.#fixed || Infinity;
    if (!this.interval) return this.#before;
    return Math.min(Math.max(SILENCE_FACTOR * this.interval, SILENCE_LEAST_MS), SILENCE_MOST_MS);
  }

  /** A connection begins; `headers` say how often its heartbeats come. */
  connected(headers) {
    this.#lastBeat = null;
    const advised = Number(headers.get('X-Silence-Threshold')) * 1000;
    if (advised > 0 && Number.isFinite(advised)) this.#before = advised;
  }

  /** Bytes came at `now`; `isBeat` if there was a heartbeat in them and no event. */
  heard(now, isBeat) {
    if (isBeat && this.#lastBeat !== null) {
      this.interval = Math.max(this.interval, now - this.#lastBeat);
    }
    this.#lastBeat = isBeat ? now : null;
  }
}

/** A pause that can be cut short, and again and again. */
export class Pause {
  #wake = () => {};

  /** Resolves after `ms` (for ever with Infinity), or with the next `end()`. */
  wait(ms) {
    return new Promise((resolve) => {
      const timer = Number.isFinite(ms) ? setTimeout(resolve, Math.min(ms, 2 ** 31 - 1)) : null;
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  end() {
    this.#wake();
  }
}
