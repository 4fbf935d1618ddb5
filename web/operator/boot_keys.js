// @ts-check
/** A key pressed over and over, to catch a boot menu. */

/** What a serial line has for the keys of boot menus (ECMA-48 and the VT220's function keys). @type {Readonly<Record<string, string>>} */
export const SERIAL_BYTES = { F2: "\x1bOQ", F8: "\x1b[19~", F12: "\x1b[24~", Del: "\x1b[3~", Esc: "\x1b" };
export const BOOT_KEYS = Object.keys(SERIAL_BYTES);

export class Repeater {
  constructor() {
    /** @type {AbortController | null} */
    this._running = null;
  }

  get running() {
    return this._running !== null;
  }

  /**
   * Presses until `stop`, or until `press` rejects, which it gives. One press is over before the next begins.
   * @param {() => Promise<void>} press
   * @param {number} everyMs
   * @param {(count: number) => void} onpress
   * @returns {Promise<unknown>} what ended it; null for `stop`
   */
  async run(press, everyMs, onpress) {
    this.stop();
    const running = new AbortController();
    this._running = running;
    try {
      for (let count = 1; !running.signal.aborted; count++) {
        await press();
        onpress(count);
        await new Promise((resolve) => setTimeout(resolve, everyMs));
      }
      return null;
    } catch (error) {
      return error;
    } finally {
      if (this._running === running) this._running = null;
    }
  }

  stop() {
    this._running?.abort();
    this._running = null;
  }
}
