// @ts-check
/** Keys that a browser or its system keeps for itself, pressed in the guest; and the catcher of boot menus. */

import { element, button } from "../shared/element.js";
import { chord } from "../shared/keys.js";
import { BOOT_KEYS, Repeater, SERIAL_BYTES } from "./boot_keys.js";
import { keys as texts } from "./console_texts.js";

const EVERY_MS = { graphics: 200, serial: 500 }; // a chord that the node presses is recorded each time
const FUNCTION_KEYS = 12;

/** @typedef {import("./surfaces.js").SerialSurface | import("./surfaces.js").GraphicsSurface} Surface */

export class KeysPanel {
  /**
   * @param {"serial" | "graphics"} kind
   * @param {Surface} surface
   * @param {(error: unknown) => string} sentence for what went wrong
   */
  constructor(kind, surface, sentence) {
    this._kind = kind;
    this._surface = surface;
    this._sentence = sentence;
    this._repeater = new Repeater();
    this._can = false;
    this._told = element("p", { class: "told", role: "status" });
    this._pressing = element("p", { class: "told" }); // too fast to be spoken
    /** @type {HTMLButtonElement[]} */
    this._buttons = [];
    this.element = element(
      "section",
      { "aria-label": texts.title },
      element("h2", {}, texts.title),
      ...(kind === "serial" ? [element("p", { class: "muted" }, texts.serialNote)] : []),
      this._told,
      this._pressing,
      group(texts.common, texts.chords.map((one) => this._chordButton(...one))),
      this._boot(),
      group(texts.consoles, functionKeys().map((one) => this._chordButton(...one)), "grid"),
      group(texts.sysrq, texts.sysrqs.map((one) => this._chordButton(...one))),
    );
  }

  /** @param {boolean} can whether keys go to the guest now */
  enable(can) {
    this._can = can;
    for (const one of this._buttons) one.disabled = !can;
    if (!can) this.stop();
  }

  stop() {
    this._repeater.stop();
  }

  /** Presses a chord, and says so; gives what it said. @param {string} names */
  async press(names) {
    let text = texts.sent(names);
    try {
      await this._surface.press(chord(names));
    } catch (error) {
      text = texts.notSent(this._sentence(error));
    }
    this._tell(text);
    return text;
  }

  /** @param {string} names @param {string} label @param {string} what */
  _chordButton(names, label, what) {
    const one = button(label, () => void this.press(names), { title: what, "aria-label": what ? `${names}: ${what}` : names });
    this._buttons.push(one);
    return one;
  }

  _boot() {
    const key = element("select", { id: "boot-key" }, ...BOOT_KEYS.map((name) => element("option", { value: name }, name)));
    const to = element(
      "select",
      { id: "boot-to" },
      element("option", { value: "serial" }, texts.bootSerial),
      element("option", { value: "keyboard" }, texts.bootKeyboard),
    );
    const start = button(texts.bootStart, () => void this._catch(key.value, to.value, false), { class: "boot-start" });
    const restart = button(texts.bootRestart, () => void this._catch(key.value, to.value, true));
    const stop = button(texts.bootStop, () => this.stop(), { class: "boot-stop" });
    this._stopButton = stop;
    stop.disabled = true;
    this._buttons.push(start, restart);
    return element(
      "div",
      { class: "group" },
      element("h3", {}, texts.boot),
      element("p", { class: "muted" }, texts.bootNote),
      element("div", { class: "line" }, element("label", { for: "boot-key" }, texts.bootKey), key),
      ...(this._kind === "serial" ? [element("div", { class: "line" }, element("label", { for: "boot-to" }, texts.bootTo), to)] : []),
      element("div", { class: "buttons" }, start, restart, stop),
    );
  }

  /** @param {string} name @param {string} to @param {boolean} restart */
  async _catch(name, to, restart) {
    const bytes = this._kind === "serial" && to === "serial" ? SERIAL_BYTES[name] : undefined;
    const press = async () => (bytes ? this._surface.typeRaw(bytes) : await this._surface.press(chord(name)));
    this._tell("");
    if (restart) await this.press("Ctrl+Alt+Del");
    if (!this._can) return; // the keyboard or the connection went meanwhile
    if (this._stopButton) this._stopButton.disabled = false;
    const running = this._repeater.run(press, bytes ? EVERY_MS.graphics : EVERY_MS[this._kind], (count) => (this._pressing.textContent = texts.pressing(name, count)));
    const error = await running;
    if (!this._repeater.running) this._pressing.textContent = "";
    if (this._stopButton) this._stopButton.disabled = !this._repeater.running;
    if (!this._repeater.running) this._tell(error ? texts.notSent(this._sentence(error)) : texts.stopped);
  }

  /** @param {string} text */
  _tell(text) {
    this._told.textContent = text;
  }
}

/** @returns {[string, string, string][]} */
function functionKeys() {
  return Array.from({ length: FUNCTION_KEYS }, (_, place) => [`Ctrl+Alt+F${place + 1}`, `F${place + 1}`, ""]);
}

/** @param {string} title @param {HTMLElement[]} parts @param {string} [how] */
function group(title, parts, how = "buttons") {
  return element("div", { class: "group" }, element("h3", {}, title), element("div", { class: how }, ...parts));
}
