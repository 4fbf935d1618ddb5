// @ts-check
/** What a console is shown on: one surface for each kind, alike to whoever drives them. */

import { GraphicsView } from "../shared/graphics_view.js";
import { keyed, LAYOUTS, strokesOf } from "../shared/layouts.js";
import { KEYS } from "../shared/keys.js";
import { SerialView } from "../shared/serial_view.js";

const SERIAL = "eva.serial.v1";
const AT_ONCE = 64; // signs of one piece where no pace is wished: what is not sent yet can still be stopped
const STROKE_MS = 12; // a key stays down: some guests look at their keyboard only so often

/** @typedef {import("../shared/keys.js").Key} Key */
/** @typedef {{text: string, layout: string, paceMs: number, masked: boolean, signal: AbortSignal, onprogress: (typed: number) => void}} Typing */

/** What both have. Those that drive it set the `on...` members. */
class Surface {
  constructor() {
    this.onlive = () => {};
    this.onheld = (/** @type {number} */ _bytes, /** @type {string} */ _why) => {};
    this.onclosed = (/** @type {{code: number, reason: string}} */ _closed) => {};
    /** Told when a key was pressed that goes nowhere, since the keyboard is another's. */
    this.onblocked = () => {};
    /** Asks the node something about this session. @type {(method: string, params: Record<string, any>) => Promise<any>} */
    this.ask = () => Promise.reject(new Error("nobody is there"));
  }
}

export class SerialSurface extends Surface {
  /** @param {HTMLElement} element @param {string} label */
  constructor(element, label) {
    super();
    this.view = new SerialView(element, { readonly: false, label });
    this.view.writable = false;
    this.view.onnotice = (mark) => {
      if (mark.notice === "attached") this.onlive();
      else if (mark.notice === "held") this.onheld(mark.held, mark.why);
    };
    this.view.onclosed = (closed) => this.onclosed(closed);
    this.view.onblocked = () => this.onblocked();
  }

  get received() {
    return this.view.received;
  }

  /** @param {string} url @param {string} ticket */
  attach(url, ticket) {
    this.view.attach(url, SERIAL, ticket);
  }

  detach() {
    this.view.detach();
  }

  /** @param {boolean} mine */
  mine(mine) {
    if (!mine && this.view.writable) this.view.forgetUnsent();
    this.view.writable = mine;
  }

  focus() {
    this.view.focus();
  }

  releaseKeys() {} // nothing stays down on a serial line

  /** The keys go to the VM's keyboard: a serial line has none of them. @param {Key[]} keys */
  async press(keys) {
    await this.ask("keys.send", { chord: keys.map((key) => key.linux) });
  }

  /** Types bytes as they are. @param {string} bytes */
  typeRaw(bytes) {
    this.view.type(new TextEncoder().encode(bytes));
  }

  /** Types a text; gives how many of its signs went. @param {Typing} typing */
  async type({ text, paceMs, masked, signal, onprogress }) {
    const encoder = new TextEncoder();
    const signs = [...keyed(text).replaceAll("\n", "\r")]; // the Enter key of a terminal
    const size = paceMs ? 1 : AT_ONCE;
    const pieces = [];
    for (let from = 0; from < signs.length; from += size) pieces.push(encoder.encode(signs.slice(from, from + size).join("")));
    const told = (/** @type {number} */ count) => Math.min(count * size, signs.length);
    const announce = masked ? (/** @type {number} */ from, /** @type {number} */ count) => this.ask("input.mask", { from, count }) : undefined;
    const progress = (/** @type {number} */ count) => onprogress(told(count));
    return told(await this.view.typeSlowly(pieces, { paceMs, signal, onprogress: progress, ...(announce ? { announce } : {}) }));
  }

  dispose() {
    this.view.dispose();
  }
}

export class GraphicsSurface extends Surface {
  /** @param {HTMLElement} element @param {string} label */
  constructor(element, label) {
    super();
    this.view = new GraphicsView(element, { viewOnly: true, label });
    this.received = 0;
    this.view.onstate = (state) => {
      if (state === "connected") this.onlive();
    };
    this.view.onclosed = (closed) => this.onclosed(closed);
    element.addEventListener("keydown", (event) => {
      if (this.view.viewOnly && event.key.length === 1 && !event.ctrlKey && !event.metaKey) this.onblocked();
    });
  }

  /** @param {string} url @param {string} ticket */
  attach(url, ticket) {
    this.view.attach(url, ticket);
  }

  detach() {
    this.view.detach();
  }

  /** @param {boolean} mine */
  mine(mine) {
    if (this.view.viewOnly === mine) this.view.viewOnly = !mine;
  }

  focus() {
    this.view.focus();
  }

  releaseKeys() {
    this.view.releaseKeys();
  }

  /** @param {Key[]} keys */
  async press(keys) {
    for (const key of keys) this.view.sendKey(key.keysym, key.code, true);
    await stroke();
    for (const key of [...keys].reverse()) this.view.sendKey(key.keysym, key.code, false);
  }

  typeRaw() {} // a screen takes keys only

  /** @param {Typing} typing */
  async type({ text, layout, paceMs, signal, onprogress }) {
    const table = LAYOUTS[layout];
    if (!table) throw new Error(`no layout ${layout}`);
    let typed = 0;
    for (const sign of keyed(text)) {
      await seen(signal);
      if (signal.aborted) break;
      for (const stroke of strokesOf(table, sign) ?? []) await this._strike(stroke);
      onprogress(++typed);
      await passed(paceMs);
      if (signal.aborted || this.view.viewOnly || !this.view.connected) break;
    }
    return typed;
  }

  /** @param {import("../shared/layouts.js").Stroke} stroke */
  async _strike({ code, keysym, shift, altgr }) {
    const held = [shift ? KEYS["Shift"] : null, altgr ? KEYS["AltGr"] : null].filter((key) => key != null);
    for (const key of held) this.view.sendKey(key.keysym, key.code, true);
    this.view.sendKey(keysym, code, true);
    await stroke();
    this.view.sendKey(keysym, code, false);
    for (const key of held.reverse()) this.view.sendKey(key.keysym, key.code, false);
  }

  dispose() {
    this.view.dispose();
  }
}

/** Until the page is looked at, or the signal stops it: the clocks of a hidden one tick once a minute. @param {AbortSignal} signal @returns {Promise<void>} */
function seen(signal) {
  return new Promise((resolve) => {
    const over = new AbortController();
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      over.abort();
      resolve();
    };
    document.addEventListener("visibilitychange", look, { signal: over.signal });
    signal.addEventListener("abort", look, { signal: over.signal });
    look();
  });
}

/** How long a key stays down: no longer than the page is looked at, or the guest would repeat it. @returns {Promise<void>} */
function stroke() {
  return new Promise((resolve) => {
    const up = () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", up);
      resolve();
    };
    const timer = setTimeout(up, STROKE_MS);
    document.addEventListener("visibilitychange", up);
  });
}

/** @param {number} ms @returns {Promise<void>} */
function passed(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
