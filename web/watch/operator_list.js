// @ts-check
// Who is connected: each operator's session, what it may do and since when; and what changed, for those who listen.

import { formatRemaining } from "../shared/remaining.js";
import { element } from "../shared/element.js";
import * as texts from "./texts.js";
import { visible } from "../shared/visible.js";

/** @typedef {import("./told.js").OperatorSession} OperatorSession */

export class OperatorList {
  #rows = element("ul", { class: "operators" });
  #none = element("p", { class: "muted" }, texts.operators.none, " ", texts.operators.noneMore);
  /** @type {Map<string, OperatorSession>} */
  #sessions = new Map();
  /** @type {(() => void)[]} */
  #clocks = [];
  #announce;

  /** @param {(sentence: string) => void} announce */
  constructor(announce) {
    this.#announce = announce;
    this.element = element(
      "section",
      { class: "card", "aria-labelledby": "operators-title" },
      element("h2", { id: "operators-title" }, texts.operators.title),
      this.#none,
      this.#rows,
    );
  }

  /**
   * @param {readonly OperatorSession[]} sessions
   * @param {boolean} held whether nothing that is typed gets through
   */
  show(sessions, held) {
    this.#compare(sessions);
    this.#none.hidden = sessions.length > 0;
    this.#clocks = [];
    this.#rows.replaceChildren(...sessions.map((one) => this.#row(one, held)));
  }

  /** Once a second. */
  tick() {
    for (const clock of this.#clocks) clock();
  }

  /**
   * @param {OperatorSession} one
   * @param {boolean} held
   */
  #row(one, held) {
    const began = new Date(one.sinceMs);
    const since = element("time", { datetime: began.toISOString() });
    const clock = () => {
      const ago = formatRemaining((Date.now() - one.sinceMs) / 1_000);
      since.textContent = texts.operators.since(began.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }), ago);
    };
    clock();
    this.#clocks.push(clock);
    const [word, look] = status(one, held);
    return element(
      "li",
      {},
      element("div", { class: "operator" }, element("b", {}, element("bdi", {}, visible(one.account))), element("span", { class: `chip ${look}` }, word)),
      element("div", { class: "muted" }, texts.operators.on(one.kind), " ", since),
    );
  }

  /** @param {readonly OperatorSession[]} sessions */
  #compare(sessions) {
    const now = new Map(sessions.map((one) => [one.session, one]));
    for (const [id, one] of now) {
      if (!this.#sessions.has(id)) this.#announce(texts.spoken.came(visible(one.account), texts.operators.on(one.kind)));
    }
    for (const [id, one] of this.#sessions) {
      if (!now.has(id)) this.#announce(texts.spoken.left(visible(one.account), texts.operators.on(one.kind)));
    }
    this.#sessions = now;
  }
}

/**
 * @param {OperatorSession} one
 * @param {boolean} held
 * @returns {[word: string, look: string]}
 */
function status(one, held) {
  if (!one.attached) return [texts.operators.away, "warn"];
  if (one.access === "view") return [texts.operators.view, ""];
  if (!one.keyboard) return [texts.operators.waiting, ""];
  return held ? [texts.operators.held, "warn"] : [texts.operators.keyboard, "good"];
}
