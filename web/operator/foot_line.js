// @ts-check
/** The line below a console: under which consent it is open, and the way out for a keyboard. */

import { element } from "../shared/element.js";
import { foot as texts } from "./console_texts.js";

export class FootLine {
  constructor() {
    const keys = texts.exitKeys.flatMap((key, place) => [place ? "+" : "", element("kbd", {}, key)]);
    this._reason = element("span", { class: "reason" });
    this.element = element("footer", { class: "foot muted" }, this._reason, element("span", { class: "exit" }, ...keys, ` ${texts.exitHint}`));
  }

  /** It is another one after a renewal, or where the console was opened again. @param {import("./standing.js").Opened} opened */
  update({ consent, giver, reason, expires_at: end }) {
    const time = new Date(end * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const text = texts.reason(giver, reason, time);
    if (this._reason.textContent === text) return;
    this._reason.textContent = text;
    this._reason.title = texts.consent(consent, text);
  }
}
