// @ts-check
/** A text typed into the guest as keystrokes: looked at first, at a pace, stopped at will; a password unseen and unkept. */

import { element, button } from "../shared/element.js";
import { keyed, lacking, LAYOUTS } from "../shared/layouts.js";
import { visible } from "../shared/visible.js";
import { typing as texts } from "./console_texts.js";

const LONGEST = 65_536; // characters
const SHOWN = 2000; // of them, in the preview
const NAMED = 8; // characters that are named before "…"
const SCREEN_PACE_MS = 60; // QEMU's keyboard holds 16 bytes, some 4 characters, and drops what a busy guest does not fetch

export class TypePanel {
  /**
   * @param {"serial" | "graphics"} kind
   * @param {import("./keys_panel.js").Surface} surface
   * @param {(error: unknown) => string} sentence for what went wrong
   */
  constructor(kind, surface, sentence) {
    this._kind = kind;
    this._surface = surface;
    this._sentence = sentence;
    this._can = false;
    /** @type {AbortController | null} */
    this._running = null;
    this._text = element("textarea", { id: "type-text", rows: 4, maxlength: LONGEST, autocomplete: "off", spellcheck: "false", class: "mono" });
    this._secret = element("input", { id: "type-secret", type: "password", autocomplete: "off", maxlength: 1024, "aria-label": texts.what });
    this._masked = element("input", { id: "type-masked", type: "checkbox" });
    this._enter = element("input", { id: "type-enter", type: "checkbox" });
    this._layout = element("select", { id: "type-layout" }, ...Object.entries(LAYOUTS).map(([id, { name }]) => element("option", { value: id }, name)));
    this._pace = element(
      "select",
      { id: "type-pace" },
      ...texts.paces.map(([ms, label]) => element("option", { value: ms, selected: ms === (kind === "serial" ? 0 : SCREEN_PACE_MS) }, label)),
    );
    this._preview = element("div", { class: "preview", role: "region", tabindex: "0", "aria-label": texts.preview });
    this._warning = element("p", { class: "warning", role: "alert" });
    this._progress = element("p", { class: "told" }); // too fast to be spoken
    this._told = element("p", { class: "told", role: "status" });
    this._start = button(texts.type, () => void this._type(), { class: "main" });
    this._stop = button(texts.stop, () => this.stop());
    this._note = element("p", { class: "muted" }, texts.maskedNote);
    this.element = this._build();
    this._masked.addEventListener("change", () => this._mask());
    for (const one of [this._text, this._secret]) one.addEventListener("input", () => this._show());
    for (const one of [this._enter, this._layout]) one.addEventListener("change", () => this._show());
    this._mask();
  }

  /** @param {boolean} can whether what is typed goes to the guest now */
  enable(can) {
    this._can = can;
    if (!can) this.stop();
    this._show();
  }

  /** A text to look at first: it was pasted. @param {string} text */
  offer(text) {
    if (this._running) return;
    this._masked.checked = false;
    this._text.value = text.slice(0, LONGEST);
    this._mask();
    this._text.focus();
  }

  focus() {
    (this._masked.checked ? this._secret : this._text).focus();
  }

  stop() {
    this._running?.abort();
  }

  /** Forgets what was entered. */
  clear() {
    this._text.value = "";
    this._secret.value = "";
    this._show();
  }

  _build() {
    const line = (/** @type {string} */ label, /** @type {HTMLElement} */ input) =>
      element("div", { class: "line" }, element("label", { for: input.id }, label), input);
    const tick = (/** @type {string} */ label, /** @type {HTMLElement} */ input) =>
      element("div", {}, input, element("label", { for: input.id, class: "tick" }, label));
    return element(
      "section",
      { "aria-label": texts.title, class: "typing" },
      element("h2", {}, texts.title),
      element("label", { for: "type-text" }, texts.what),
      this._text,
      this._secret,
      tick(texts.masked, this._masked),
      this._note,
      tick(texts.enter, this._enter),
      ...(this._kind === "graphics" ? [line(texts.layout, this._layout)] : []),
      line(texts.pace, this._pace),
      ...(this._kind === "graphics" ? [element("p", { class: "muted" }, texts.paceNote)] : []),
      element("h3", {}, texts.preview),
      this._preview,
      this._warning,
      element("div", { class: "buttons" }, this._start, this._stop),
      this._progress,
      this._told,
    );
  }

  get _wanted() {
    const text = keyed(this._masked.checked ? this._secret.value : this._text.value);
    return text + (this._enter.checked && text ? "\n" : "");
  }

  _mask() {
    const masked = this._masked.checked;
    // what was in the one is not left behind in the other
    if (masked) this._text.value = "";
    else this._secret.value = "";
    this._text.hidden = masked;
    this._secret.hidden = !masked;
    this._note.hidden = !masked;
    this._show();
  }

  _show() {
    const wanted = this._wanted;
    const count = [...wanted].length;
    const seen = this._masked.checked ? "•".repeat(count) : shown(wanted);
    if (this._preview.firstChild?.textContent !== (count ? seen : texts.nothing)) { // else a person may be reading it
      this._preview.replaceChildren(count ? seen : texts.nothing, ...(count ? [element("span", { class: "count" }, texts.count(count))] : []));
      this._preview.classList.toggle("muted", !count);
    }
    const layout = LAYOUTS[this._layout.value];
    const missing = this._kind === "graphics" && layout ? lacking(layout, wanted) : [];
    const names = missing.slice(0, NAMED).map(named).join(" ") + (missing.length > NAMED ? " …" : "");
    const warning = this._masked.checked ? texts.lackingMasked(missing.length, layout?.name ?? "") : texts.lacking(names, layout?.name ?? "");
    const warned = missing.length ? warning : "";
    if (this._warning.textContent !== warned) this._warning.textContent = warned; // spoken once
    this._start.disabled = !this._can || !count || missing.length > 0 || this._running !== null;
    this._stop.disabled = this._running === null;
  }

  async _type() {
    const text = this._wanted;
    const all = [...text].length;
    const masked = this._masked.checked;
    const running = new AbortController();
    this._running = running;
    if (masked) this._secret.value = "";
    this._show();
    this._told.textContent = "";
    this._progress.textContent = texts.progress(0, all);
    try {
      const typed = await this._surface.type({
        text, layout: this._layout.value, paceMs: Number(this._pace.value), masked, signal: running.signal,
        onprogress: (done) => (this._progress.textContent = texts.progress(Math.min(done, all), all)),
      });
      this._told.textContent = typed < all ? texts.stopped(typed, all) : texts.done;
      if (typed === all && !masked) this._text.value = "";
    } catch (error) {
      this._told.textContent = texts.failed(this._sentence(error));
    } finally {
      this._running = null;
      this._progress.textContent = "";
      this._show();
    }
  }
}

/** What cannot be seen gets a sign. @param {string} text */
function shown(text) {
  const cut = text.length > SHOWN ? text.slice(0, SHOWN) + " …" : text;
  return cut.replace(/[^\n\t]+/g, visible).replaceAll("\n", texts.newline + "\n").replaceAll("\t", texts.tab);
}

/** @param {string} sign */
function named(sign) {
  const visible = /^[\p{L}\p{N}\p{P}\p{S}]$/u.test(sign);
  return visible ? sign : texts.unnamed((sign.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0"));
}
