// @ts-check
// What is always in sight: which VM, how long, whether this is live; and Pause and Stop.

import { Remaining, formatRemaining } from "../shared/remaining.js";
import { button, element, enable } from "../shared/element.js";
import * as texts from "./texts.js";
import { machine } from "./told.js";
import { visible } from "../shared/visible.js";

/**
 * @typedef {import("./told.js").Standing} Standing
 * @typedef {import("./line.js").Phase} Phase
 */

const SOON_S = 300;

export class StatusBar {
  #timer = element("span", { class: "time", role: "timer" }, "–");
  #left;
  #live = element("span", { class: "live", "data-phase": "connecting" }, texts.bar.connecting);
  #pause;
  #stop;
  #actions;
  /** @type {Remaining | null} */
  #remaining = null;
  #node = "";

  /**
   * @param {string} resourceId
   * @param {{pause: () => void, stop: () => void}} on
   */
  constructor(resourceId, on) {
    const { name, group, subscription } = machine(resourceId);
    this.#pause = button(texts.bar.pause, on.pause, { class: "pause" });
    this.#stop = button(texts.bar.stop, on.stop, { class: "bad stop" });
    this.#actions = element("div", { class: "actions" }, this.#pause, this.#stop);
    this.#left = element("div", { class: "left" }, element("span", { class: "muted" }, texts.bar.remaining), this.#timer);
    const where = texts.bar.where(visible(group), visible(subscription));
    this.element = element(
      "header",
      { class: "bar" },
      element(
        "div",
        { class: "vm" },
        element("h1", {}, element("bdi", {}, visible(name))),
        element("p", { class: "muted", title: where }, where),
      ),
      this.#live,
      this.#left,
      this.#actions,
    );
    enable(this.#pause, false);
  }

  /** @param {Standing} state */
  state(state) {
    this.#node = state.node;
    this.#remaining ??= new Remaining(state.remainingS);
    // told in whole seconds, again and again: what is within one is no news, and the clock does not jump
    if (Math.abs(this.#remaining.seconds - state.remainingS) > 1) this.#remaining.set(state.remainingS);
    this.phase("open");
    this.tick();
  }

  /** @param {Phase} phase */
  phase(phase) {
    const words = { connecting: texts.bar.connecting, open: texts.bar.live(this.#node), lost: texts.bar.again, ending: texts.bar.ending };
    if (phase === "open" && !this.#node) return; // it is live once the node has said something
    this.#live.textContent = words[phase];
    this.#live.dataset.phase = phase;
  }

  /** @param {{paused: boolean, canPause: boolean}} how */
  show({ paused, canPause }) {
    this.#pause.textContent = paused ? texts.bar.resume : texts.bar.pause;
    this.#pause.classList.toggle("main", paused);
    this.#pause.title = canPause ? "" : texts.banner.noNode;
    enable(this.#pause, canPause);
  }

  /** That are left; 0 where the node has not said. */
  get seconds() {
    return this.#remaining?.seconds ?? 0;
  }

  tick() {
    if (!this.#remaining) return;
    const seconds = this.#remaining.seconds;
    this.#timer.textContent = formatRemaining(seconds);
    this.#left.classList.toggle("soon", seconds < SOON_S);
  }

  /** Nothing is left to pause, to stop or to count. */
  over() {
    this.#actions.remove();
    this.#left.remove();
    this.#live.remove();
  }
}
