// @ts-check
/** The time that is left of a consent, where the guest cannot draw: shown each second, spoken at the node's marks only. */

import { element } from "../shared/element.js";
import { formatRemaining } from "../shared/remaining.js";
import { status as texts } from "./console_texts.js";

const SOON_S = 15 * 60;
const LAST_S = 60;

export class CountDown {
  constructor() {
    this._time = element("span", { class: "time" });
    this.element = element(
      "div",
      { class: "count-down", role: "timer", "aria-label": texts.leftLabel },
      this._time,
      element("span", { class: "unit" }, texts.left),
    );
  }

  /** @param {number} seconds */
  show(seconds) {
    const text = formatRemaining(seconds);
    if (this._time.textContent !== text) this._time.textContent = text;
    this.element.classList.toggle("soon", seconds < SOON_S);
    this.element.classList.toggle("last", seconds < LAST_S);
  }
}
