// @ts-check
// One console of the VM as a watcher sees it: opened by itself whenever it can be, and again after whatever ended it.

import { endingOfCode, endingText } from "../shared/endings.js";
import { GraphicsView } from "../shared/graphics_view.js";
import { SerialView } from "../shared/serial_view.js";
import { button, element } from "../shared/element.js";
import { sentenceOf } from "./line.js";
import * as texts from "./texts.js";
import { opened } from "./told.js";

/**
 * @typedef {import("./line.js").Line} Line
 * @typedef {import("./told.js").Standing} Standing
 * @typedef {import("./told.js").SessionEnded} SessionEnded
 */

const SERIAL_SUBPROTOCOL = "eva.serial.v1";
const PAUSES_MS = [500, 1_500, 4_000, 8_000]; // between attempts; the last one repeats
const LASTED_MS = 10_000; // a console that was up so long is opened again at once

export class ConsolePane {
  #kind;
  #line;
  #title;
  #screen;
  #curtain;
  #said = element("p");
  #retry;
  #quiet = element("span", { class: "muted", hidden: true }, texts.consoles.quiet);
  /** @type {SerialView | GraphicsView | null} */
  #view = null;
  /** @type {SerialView | GraphicsView | null} */
  #stale = null;
  #start = -1; // the offset of the first byte that this view could have
  #session = "";
  #running = false;
  #busy = false;
  #attempts = 0;
  #attachedAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {"serial" | "graphics"} kind
   * @param {Line} line
   */
  constructor(kind, line) {
    this.#kind = kind;
    this.#line = line;
    const id = `pane-${kind}`;
    this.#title = element("h2", { id }, texts.CONSOLES[kind]);
    this.#screen = element("div", { class: "screen" });
    this.#retry = button(texts.consoles.retry, () => this.#now(), { hidden: true });
    this.#curtain = element("div", { class: "curtain" }, this.#said, this.#retry);
    this.element = element(
      "section",
      { class: `pane ${kind}`, "aria-labelledby": id },
      element("div", { class: "pane-head" }, this.#title, this.#quiet, element("span", { class: "chip" }, texts.consoles.viewOnly)),
      element("div", { class: "stage" }, this.#screen, this.#curtain),
    );
    this.#say(texts.consoles.opening);
  }

  get kind() {
    return this.#kind;
  }

  /** The node's word. @param {Standing} state */
  state(state) {
    const started = state.running && !this.#running;
    this.#running = state.running;
    if (!state.running && !this.#view) {
      this.#later(null);
      this.#say(texts.consoles.stopped);
    } else if (started) this.#now();
  }

  /** The line to the node is there (again), or is not. @param {boolean} up */
  line(up) {
    if (up) {
      if (this.#running) this.#now();
    } else {
      this.#drop();
      this.#say(texts.consoles.offline);
    }
  }

  /** The node has ended a session. @param {SessionEnded} told */
  ended(told) {
    if (told.session === this.#session) this.#closed(told.reason);
  }

  /** Once a second: a terminal that nothing has come to is black, and that is no fault. */
  tick() {
    const view = this.#view;
    this.#quiet.hidden = !(view instanceof SerialView && this.#start >= 0 && view.received === this.#start);
  }

  dispose() {
    this.#drop();
    this.#stale?.dispose();
    this.#stale = null;
  }

  #now() {
    this.#attempts = 0;
    this.#later(null);
    void this.#open();
  }

  async #open() {
    if (this.#busy || this.#view || !this.#line.open) return;
    this.#busy = true;
    this.#say(texts.consoles.opening);
    try {
      const { session, ticket } = opened(await this.#line.call("watch.open", { kind: this.#kind }));
      this.#session = session;
      this.#attach(ticket);
    } catch (error) {
      const why = sentenceOf(error, texts.refusals, texts.errors);
      if (this.#line.open) this.#again(this.#running ? why : texts.consoles.stopped);
    } finally {
      this.#busy = false;
    }
  }

  /** @param {string} ticket */
  #attach(ticket) {
    const url = this.#line.consoleUrl;
    this.#stale?.dispose();
    this.#stale = null;
    this.#screen.replaceChildren();
    this.#attachedAt = performance.now();
    if (this.#kind === "serial") {
      const view = new SerialView(this.#screen, { readonly: true, label: texts.consoles.label("serial") });
      this.#view = view;
      this.#start = -1;
      view.onnotice = (mark) => mark.notice === "attached" && (this.#start = view.received);
      view.onclosed = (closed) => this.#view === view && this.#closed(endingOfCode(closed.code));
      view.attach(url, SERIAL_SUBPROTOCOL, ticket);
      this.#say(null);
    } else {
      const view = new GraphicsView(this.#screen, { viewOnly: true, label: texts.consoles.label("graphics") });
      this.#view = view;
      view.onstate = (state) => state === "connected" && this.#view === view && this.#say(null);
      view.onclosed = (closed) => this.#view === view && this.#closed(endingOfCode(closed.code));
      view.scale(true);
      view.attach(url, ticket);
    }
  }

  /** @param {string | null} reason an ending's word; null where the connection only dropped */
  #closed(reason) {
    const session = this.#session;
    const lasted = performance.now() - this.#attachedAt > LASTED_MS;
    this.#drop();
    if (!this.#line.open) return this.#say(texts.consoles.offline);
    // what only dropped would wait a minute for a watcher who comes back by another door
    if (reason === null) this.#line.call("watch.leave", { session }).catch(() => {});
    if (lasted) this.#attempts = 0;
    if (this.#running && reason !== "vm-stopped") this.#again(reason === null ? texts.consoles.again : endingText(reason));
    else this.#say(texts.consoles.stopped);
  }

  /** @param {string} why */
  #again(why) {
    this.#say(why, true);
    this.#later(PAUSES_MS[Math.min(this.#attempts, PAUSES_MS.length - 1)] ?? null);
    this.#attempts += 1;
  }

  /** @param {number | null} ms */
  #later(ms) {
    clearTimeout(this.#timer);
    if (ms !== null) this.#timer = setTimeout(() => void this.#open(), ms);
  }

  #drop() {
    this.#later(null);
    this.#stale = this.#view ?? this.#stale;
    this.#view = null;
    this.#session = "";
    this.#stale?.detach(); // what it showed last stays to be seen, behind the curtain
  }

  /**
   * Over the screen; null lifts it.
   * @param {string | null} text
   * @param {boolean} [retry] whether a person may hurry it
   */
  #say(text, retry = false) {
    this.#curtain.hidden = text === null;
    this.#said.textContent = text ?? "";
    this.#retry.hidden = !retry;
  }
}
