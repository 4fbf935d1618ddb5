// @ts-check
/** Search in what a serial console printed. */

import { element, button } from "../shared/element.js";
import { search as texts } from "./console_texts.js";

export class SearchBar {
  /**
   * @param {import("../shared/serial_view.js").SerialView} view
   * @param {() => void} closed
   */
  constructor(view, closed) {
    this._view = view;
    this._closed = closed;
    this._input = element("input", { type: "search", "aria-label": texts.label, placeholder: texts.label, autocomplete: "off", spellcheck: "false", maxlength: 256 });
    this._told = element("span", { class: "muted", role: "status" });
    this.element = element(
      "div",
      { class: "search-bar", role: "search", hidden: true },
      this._input,
      button(texts.previous, () => this._find(true)),
      button(texts.next, () => this._find(false)),
      this._told,
      button(texts.close, () => this.hide(), { class: "plain" }),
    );
    this._input.addEventListener("input", () => this._find(false, true));
    this._input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this._find(!event.shiftKey);
      else if (event.key === "Escape") this.hide();
    });
  }

  show() {
    this.element.hidden = false;
    this._input.focus();
    this._input.select();
  }

  hide() {
    this.element.hidden = true;
    this._view.search("");
    this._closed();
  }

  /** @param {boolean} backwards @param {boolean} [incremental] */
  _find(backwards, incremental = false) {
    const text = this._input.value;
    const found = this._view.search(text, { backwards, incremental });
    this._told.textContent = text && !found ? texts.none : "";
  }
}
