// @ts-check
/** The time that a consent has left, by a clock that nobody sets. */

/**
 * Seconds as a person reads them: "7 h 04 min", "14 min 09 s", "42 s".
 * @param {number} seconds
 */
export function formatRemaining(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
  if (whole >= 60) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${whole} s`;
}

/** Counts down from what the node said was left. */
export class Remaining {
  /**
   * @param {number} seconds
   * @param {() => number} [nowMs] a clock that only rises
   */
  constructor(seconds, nowMs = () => performance.now()) {
    this._nowMs = nowMs;
    this._endMs = nowMs() + seconds * 1000;
  }

  /** The node said it again, or the consent was renewed. @param {number} seconds */
  set(seconds) {
    this._endMs = this._nowMs() + seconds * 1000;
  }

  /** Seconds, never below 0. */
  get seconds() {
    return Math.max(0, (this._endMs - this._nowMs()) / 1000);
  }
}
