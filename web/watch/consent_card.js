// @ts-check
// What was consented to.

import { element } from "../shared/element.js";
import * as texts from "./texts.js";
import { visible } from "../shared/visible.js";

/** @typedef {import("./told.js").Standing} Standing */

export class ConsentCard {
  #facts = element("dl");

  constructor() {
    this.element = element(
      "section",
      { class: "card", "aria-labelledby": "consent-title" },
      element("h2", { id: "consent-title" }, texts.consent.title),
      this.#facts,
    );
  }

  /** @param {Standing} state */
  show(state) {
    const facts = [
      [texts.consent.reason, state.reason || texts.consent.noReason],
      [texts.consent.access, texts.consent.accesses[state.access]],
      [texts.consent.consoles, state.kinds.map((kind) => texts.CONSOLES[kind]).join(", ")],
      [texts.consent.ends, new Date(state.expiresAt * 1_000).toLocaleString()],
      [texts.consent.giver, state.giver],
      [texts.consent.node, state.node],
      [texts.consent.resourceId, state.resourceId],
    ];
    this.#facts.replaceChildren(
      ...facts.map(([name = "", value = ""]) => element("div", {}, element("dt", {}, name), element("dd", {}, element("bdi", {}, visible(value))))),
    );
  }
}
