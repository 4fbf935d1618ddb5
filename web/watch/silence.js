// @ts-check
// Whether too long nothing was heard. A suspended machine's silence counts: its wall clock shows it at once when it wakes.

export class Silence {
  #mostMs;
  #clocks;
  /** @type {number[]} */
  #heard;

  /**
   * @param {number} mostMs
   * @param {readonly (() => number)[]} [clocks] one that nobody sets, which may stand still in a suspension, and the wall's;
   *   whichever shows more counts
   */
  constructor(mostMs, clocks = [() => performance.now(), () => Date.now()]) {
    this.#mostMs = mostMs;
    this.#clocks = clocks;
    this.#heard = clocks.map((clock) => clock());
  }

  get tooLong() {
    return this.#clocks.some((clock, index) => clock() - (this.#heard[index] ?? 0) >= this.#mostMs);
  }

  /** Something came. False, and it changes nothing, where it came too late: it may have lain here since before a suspension. */
  hear() {
    if (this.tooLong) return false;
    this.#heard = this.#clocks.map((clock) => clock());
    return true;
  }
}
