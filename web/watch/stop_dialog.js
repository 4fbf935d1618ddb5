// @ts-check
// Stop: one question, then the node is told; where it does not answer, the provider withdraws the consent.

import { button, element } from "../shared/element.js";
import { sentenceOf } from "./line.js";
import { ProviderError } from "./provider.js";
import * as texts from "./texts.js";
import { stopped } from "./told.js";

/**
 * @typedef {import("./line.js").Line} Line
 * @typedef {import("./provider.js").Provider} Provider
 * @typedef {import("./told.js").Stopped} Stopped
 * @typedef {import("./told.js").OperatorSession} OperatorSession
 * @typedef {import("./provider.js").NodeCut} NodeCut
 * @typedef {Readonly<{node: Stopped, roundMs: number, cut: readonly OperatorSession[]} | {cuts: readonly NodeCut[]} | {gone: string}>} Outcome
 */

const NODE_PATIENCE_MS = 1_500; // a cut is a matter of milliseconds; the consent must not wait for a lost connection

export class StopDialog {
  #line;
  #provider;
  #who;
  #onstopped;
  #dialog;
  #said = element("p", { role: "status" });
  #now;
  #keep;
  #under = false;

  /**
   * @param {Line} line
   * @param {Provider} provider
   * @param {() => readonly OperatorSession[]} who is on
   * @param {(outcome: Outcome) => void} onstopped
   */
  constructor(line, provider, who, onstopped) {
    this.#line = line;
    this.#provider = provider;
    this.#who = who;
    this.#onstopped = onstopped;
    this.#now = button(texts.stop.now, () => void this.#stop(), { class: "now", autofocus: true });
    this.#keep = button(texts.stop.keep, () => this.#dialog.close());
    this.#dialog = element(
      "dialog",
      { "aria-labelledby": "stop-title", "aria-describedby": "stop-what" },
      element("h2", { id: "stop-title" }, texts.stop.title),
      element("p", { id: "stop-what" }, texts.stop.what),
      this.#said,
      element("div", { class: "choices" }, this.#keep, this.#now),
    );
    this.#dialog.addEventListener("cancel", (event) => this.#under && event.preventDefault());
    this.element = this.#dialog;
  }

  /** Whether it is being stopped. */
  get under() {
    return this.#under;
  }

  ask() {
    this.#said.textContent = "";
    this.#now.textContent = texts.stop.now;
    this.#dialog.showModal();
  }

  close() {
    this.#dialog.close();
  }

  async #stop() {
    const pressedAt = performance.now();
    this.#busy(true);
    this.#said.textContent = texts.stop.stopping;
    try {
      const outcome = (await this.#byNode(pressedAt)) ?? (await this.#byProvider());
      this.#under = false;
      this.#dialog.close();
      this.#onstopped(outcome);
    } catch (error) {
      this.#busy(false);
      this.#said.textContent = texts.stop.failed(sentenceOf(error, texts.refusals, texts.errors));
      this.#now.textContent = texts.stop.retry;
    }
  }

  /**
   * @param {number} pressedAt
   * @returns {Promise<Outcome | null>} null where the node did not do it, or not in time, for whatever reason
   */
  async #byNode(pressedAt) {
    if (!this.#line.open) return null;
    const cut = this.#who(); // as it is before the node says that nobody is
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error("late")), NODE_PATIENCE_MS));
    try {
      const node = stopped(await Promise.race([this.#line.call("consent.stop"), late]));
      return { node, roundMs: performance.now() - pressedAt, cut };
    } catch {
      return null; // whatever it was, the provider can
    }
  }

  /** @returns {Promise<Outcome>} */
  async #byProvider() {
    this.#said.textContent = texts.stop.byProvider;
    try {
      return { cuts: await this.#provider.withdraw() };
    } catch (error) {
      if (error instanceof ProviderError && error.over) return { gone: error.message };
      throw error;
    }
  }

  /** @param {boolean} under */
  #busy(under) {
    this.#under = under;
    this.#now.disabled = under;
    this.#keep.disabled = under;
  }
}
