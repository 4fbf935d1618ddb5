// @ts-check
// What operators type on serial, a line of theirs a row, as the guest echoed it. What was hidden comes as a count and stays one.

import { element } from "../shared/element.js";
import * as texts from "./texts.js";
import { visible } from "../shared/visible.js";

/** @typedef {import("./told.js").Typed} Typed */

const MAX_ROWS = 500;
const MAX_PARTS = 200; // of one row; then another begins
const MAX_LENGTH = 2_000; // characters of one row, and one part more
const ENDS = new Set(["Enter", "Ctrl+C", "Ctrl+Z", "Ctrl+\\", "Ctrl+D"]); // after them a line of its own begins

export class TypedLog {
  #rows = element("ol");
  #log = element("div", { class: "typed", role: "log", "aria-live": "off", tabindex: 0, "aria-labelledby": "typed-title", hidden: true }, this.#rows);
  #none = element("p", { class: "muted" }, texts.typing.none);
  #dropped = element("p", { class: "muted", hidden: true });
  #droppedCount = 0;
  /** The row that a session still types in. @type {Map<string, HTMLElement>} */
  #unfinished = new Map();

  constructor() {
    this.element = element(
      "section",
      { class: "card grow", "aria-labelledby": "typed-title" },
      element("h2", { id: "typed-title" }, texts.typing.title),
      element("p", { class: "muted" }, texts.typing.serialOnly),
      this.#none,
      this.#dropped,
      this.#log,
    );
  }

  get empty() {
    return this.#rows.childElementCount === 0;
  }

  /** @param {Typed} told */
  add(told) {
    this.#none.hidden = true;
    this.#log.hidden = false;
    const atEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 24;
    for (const part of told.parts) this.#part(told, part);
    this.#bound();
    if (atEnd) this.#log.scrollTop = this.#log.scrollHeight;
  }

  /**
   * @param {Typed} told
   * @param {Typed["parts"][number]} part
   */
  #part(told, part) {
    const line = this.#line(told);
    if ("hidden" in part) return addHidden(line, part.hidden);
    if ("key" in part) {
      line.append(element("kbd", {}, visible(part.key)));
      if (ENDS.has(part.key)) this.#unfinished.delete(told.session);
    } else addText(line, visible(part.text));
    if (line.childElementCount >= MAX_PARTS || (line.textContent?.length ?? 0) >= MAX_LENGTH) this.#unfinished.delete(told.session);
  }

  /** The line to go on in. @param {Typed} told */
  #line(told) {
    const there = this.#unfinished.get(told.session);
    if (there) return there;
    const now = new Date();
    const line = element("div", { class: "line" });
    this.#unfinished.set(told.session, line);
    this.#rows.append(
      element(
        "li",
        {},
        element("div", { class: "by" }, element("time", { datetime: now.toISOString() }, now.toLocaleTimeString()), " ", element("bdi", {}, visible(told.account))),
        line,
      ),
    );
    return line;
  }

  #bound() {
    while (this.#rows.childElementCount > MAX_ROWS) {
      const oldest = this.#rows.firstElementChild;
      for (const [session, line] of this.#unfinished) if (oldest?.contains(line)) this.#unfinished.delete(session);
      oldest?.remove();
      this.#droppedCount += 1;
    }
    this.#dropped.hidden = this.#droppedCount === 0;
    this.#dropped.textContent = texts.typing.dropped(this.#droppedCount);
  }
}

/**
 * @param {HTMLElement} line
 * @param {string} text
 */
function addText(line, text) {
  const last = line.lastElementChild;
  if (last?.classList.contains("echoed")) last.textContent += text;
  else line.append(element("bdi", { class: "echoed" }, text));
}

/**
 * @param {HTMLElement} line
 * @param {number} count
 */
function addHidden(line, count) {
  const last = line.lastElementChild;
  const before = last instanceof HTMLElement && last.dataset.hidden ? Number(last.dataset.hidden) : 0;
  const [dots, words] = [element("span", { "aria-hidden": "true" }, `${texts.typing.dots} `), texts.typing.hidden(before + count)];
  const made = element("span", { class: "hidden-input", "data-hidden": before + count }, dots, words);
  if (before && last) last.replaceWith(made);
  else line.append(made);
}
