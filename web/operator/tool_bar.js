// @ts-check
/** What can be done at a console besides typing: one row of buttons, those of its kind. */

import { element, button } from "../shared/element.js";
import { tools as texts } from "./console_texts.js";

/** @typedef {{press: () => void, keys: () => void, type: () => void, full: () => void, leave: () => void}} Deeds */

export class ToolBar {
  /** @param {Deeds} deeds @param {HTMLElement[]} ofKind */
  constructor(deeds, ofKind) {
    this.ctrlAltDel = button(texts.ctrlAltDel, deeds.press);
    this.keys = button(texts.keys, deeds.keys, { "aria-expanded": "false" });
    this.type = button(texts.type, deeds.type, { "aria-expanded": "false" });
    this.element = element(
      "div",
      { class: "tool-bar", role: "toolbar", "aria-label": texts.label },
      this.ctrlAltDel,
      this.keys,
      this.type,
      element("span", { class: "gap" }),
      ...ofKind,
      button(texts.full, deeds.full),
      button(texts.leave, deeds.leave, { class: "bad leave" }),
    );
  }

  /** @param {boolean} can whether keys go to the guest now */
  enable(can) {
    this.ctrlAltDel.disabled = !can;
  }

  focus() {
    (this.ctrlAltDel.disabled ? this.keys : this.ctrlAltDel).focus();
  }
}
