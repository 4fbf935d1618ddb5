// @ts-check
/** One console with everything around it: its status, its tools, the guest's own area, and its end. */

import { element, button } from "../shared/element.js";
import { RpcError } from "../shared/json_rpc.js";
import { ConsoleSession } from "./console_session.js";
import { held as heldTexts, status as statusTexts, tools as texts } from "./console_texts.js";
import { endedCard } from "./ended_card.js";
import { FootLine } from "./foot_line.js";
import { watchExit } from "./keyboard_exit.js";
import { KeysPanel } from "./keys_panel.js";
import { graphicsTools, serialTools, sizeAdvice } from "./kind_tools.js";
import { PeoplePanel } from "./people_panel.js";
import { SearchBar } from "./search_bar.js";
import { StatusBar } from "./status_bar.js";
import { GraphicsSurface, SerialSurface } from "./surfaces.js";
import { kinds, refusals } from "./texts.js";
import { ToolBar } from "./tool_bar.js";
import { TypePanel } from "./type_panel.js";

const SPOKEN_S = new Set([900, 300, 60]); // the node's own marks

/** A sentence for what went wrong with a call. @param {unknown} error */
export function sentence(error) {
  if (error instanceof RpcError) return refusals[error.reason] ?? error.message;
  throw error;
}

export class ConsolePane {
  /**
   * @param {import("./node_link.js").NodeLink} link
   * @param {import("./console_session.js").Wish} wish
   * @param {import("./standing.js").Opened} opened
   * @param {HTMLElement} host where it stands: a terminal measures its letters in the page
   * @param {{close: () => void, again: () => void, changed: () => void}} deeds
   */
  constructor(link, wish, opened, host, deeds) {
    this._link = link;
    this._deeds = deeds;
    this._closing = false;
    /** Focuses the card that tells the end. @type {(() => void) | null} */
    this._focusEnd = null;
    const vm = opened.resource_id.slice(opened.resource_id.lastIndexOf("/") + 1);
    this.title = `${vm} · ${kinds[opened.kind]}`;
    this._stage = element("div", { class: `stage ${opened.kind}` });
    this._screen = element("div", { class: "screen" });
    this._stage.append(this._screen);
    this.element = element("section", { class: "pane", "aria-label": this.title }, this._stage);
    host.append(this.element);
    /** @type {SerialSurface | null} */
    this._serial = opened.kind === "serial" ? new SerialSurface(this._screen, this.title) : null;
    this._surface = this._serial ?? new GraphicsSurface(this._screen, this.title);
    this.session = new ConsoleSession(link, wish, opened, this._surface); // first: its connection is made while the rest is built
    this._surface.ask = (method, params) => this.session.ask(method, params);
    this._surface.onblocked = () => this._blocked();
    this._status = new StatusBar({ take: () => void this.takeKeyboard(), people: () => this._toggle("people") });
    this._keys = new KeysPanel(opened.kind, this._surface, sentence);
    this._type = new TypePanel(opened.kind, this._surface, sentence);
    this._people = new PeoplePanel((to) => void this._try(() => this.session.giveKeyboard(to)));
    this._side = element("aside", { class: "side", hidden: true });
    // what speaks stands there before it has a word
    this._held = element("div", { class: "banner warn held", role: "status" });
    this._notice = element("div", { class: "banner", role: "status" });
    this._spoken = element("p", { class: "unseen", "aria-live": "assertive" });
    this._search = this._serial ? new SearchBar(this._serial.view, () => this._surface.focus()) : null;
    this._advice = this._serial ? sizeAdvice(this._serial.view) : null;
    this._bar = new ToolBar(this._toolDeeds(), this._kindTools());
    this._foot = new FootLine();
    this._build();
    watchExit(this._stage, () => this._exit());
    this._stage.addEventListener("focusout", () => this._surface.releaseKeys());
    this._blur = () => this._surface.releaseKeys();
    window.addEventListener("pagehide", this._blur);
    if (this._serial) this._wireSerial(this._serial);
    this.session.onchange = () => this.update();
    this.update();
  }

  get ended() {
    return this.session.state === "ended";
  }

  /** Shows how it stands. */
  update() {
    const { standing, state } = this.session;
    const can = standing.mine && state === "live";
    this._status.update(this.session);
    this._foot.update(standing.opened);
    this._people.update(standing, this._link.who?.account ?? "");
    this._keys.enable(can);
    this._type.enable(can);
    this._bar.enable(can);
    this._advice?.enable(can);
    this._stage.classList.toggle("away", state === "away");
    this._showHeld();
    if (state === "ended") this._showEnd();
    this._deeds.changed();
  }

  /** Once a second. */
  tick() {
    this._status.tick(this.session);
  }

  /** @param {string} method @param {Record<string, any>} params */
  take(method, params) {
    if (params.session !== this.session.standing.session) return;
    this.session.take(method, params);
    if (method === "session.countdown" && SPOKEN_S.has(params.remaining_s)) {
      this._speak(statusTexts.soon(params.remaining_s >= 60 ? `${params.remaining_s / 60} min` : `${params.remaining_s} s`));
    } else if (method === "session.renewed") {
      const time = new Date(params.expires_at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
      this._tell(statusTexts.renewed(time));
    }
  }

  focus() {
    if (this.ended) this._focusEnd?.();
    else this._surface.focus();
  }

  async takeKeyboard() {
    this._tell("");
    await this._try(() => this.session.takeKeyboard());
    if (!this.ended) this._surface.focus();
  }

  /** Leaves, and frees all. */
  dispose() {
    this._closing = true;
    this._keys.stop();
    this._type.stop();
    this._type.clear();
    this.session.leave();
    window.removeEventListener("pagehide", this._blur);
    this._surface.dispose();
    this.element.remove();
  }

  _build() {
    this.element.replaceChildren(
      this._status.element,
      this._bar.element,
      this._held,
      this._notice,
      ...(this._advice ? [this._advice.line] : []),
      ...(this._search ? [this._search.element] : []),
      element("div", { class: "middle" }, this._stage, this._side),
      this._foot.element,
      this._spoken,
    );
  }

  _toolDeeds() {
    return {
      press: async () => this._tell(await this._keys.press("Ctrl+Alt+Del")),
      keys: () => this._toggle("keys"),
      type: () => this._toggle("type"),
      full: () => void this._fullScreen(),
      leave: () => this._deeds.close(),
    };
  }

  _kindTools() {
    if (!this._serial) return graphicsTools(/** @type {GraphicsSurface} */ (this._surface).view);
    const deeds = { search: () => this._search?.show(), save: () => this._save(), tell: (/** @type {string} */ text) => this._tell(text) };
    return serialTools(this._serial.view, deeds);
  }

  /** @param {SerialSurface} serial */
  _wireSerial(serial) {
    serial.view.onpaste = (text) => {
      this._toggle("type", true);
      this._type.offer(text);
    };
    serial.view.ongap = (bytes) => this._tell(heldTexts.gap(bytes));
    serial.view.onfull = () => this._tell(heldTexts.full);
  }

  /** Opens one of the tools beside the console, or closes it. @param {"keys" | "type" | "people"} which @param {boolean} [open] */
  _toggle(which, open) {
    const panels = { keys: this._keys, type: this._type, people: this._people };
    const buttons = { keys: this._bar.keys, type: this._bar.type, people: this._status.people };
    const panel = panels[which].element;
    const shown = open ?? panel.parentElement !== this._side;
    this._side.replaceChildren(...(shown ? [panel] : []));
    this._side.hidden = !shown;
    for (const [name, one] of Object.entries(buttons)) one.setAttribute("aria-expanded", String(shown && name === which));
    if (!shown) this._surface.focus();
    else if (which === "type") this._type.focus();
  }

  async _fullScreen() {
    try {
      if (document.fullscreenElement) {
        await document.exitFullscreen();
        return;
      }
      await this.element.requestFullscreen();
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
      this._tell(texts.notFull); // a browser may forbid it, and says why to nobody
      return;
    }
    this._surface.focus();
    // with it Alt+Tab, Escape and the like are the guest's too; not every browser has it
    await /** @type {any} */ (navigator).keyboard?.lock?.().catch(() => {});
  }

  _exit() {
    this._surface.releaseKeys();
    this._bar.focus();
  }

  _save() {
    const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "");
    this._serial?.view.download(`${this.session.standing.vm}-serial-${stamp}.txt`);
  }

  _blocked() {
    this._tell(this.session.standing.viewOnly ? heldTexts.blockedView : heldTexts.blocked);
  }

  _showHeld() {
    const { bytes, why } = this.session.standing.held;
    const shown = (bytes > 0 || why !== "") && this.session.state === "live";
    if (!shown) {
      this._held.replaceChildren();
      return;
    }
    const text = (heldTexts[/** @type {"no-echo" | "lease" | "tenant"} */ (why)] ?? heldTexts.lease)(bytes);
    const [before] = this._held.childNodes;
    if (before?.textContent === text) return; // the button beside it may have the focus
    const anyway = button(heldTexts.anyway, () => void this._try(() => this.session.ask("input.release")));
    this._held.replaceChildren(element("span", {}, text), ...(why === "no-echo" && this._serial ? [anyway] : []));
  }

  _showEnd() {
    const { ended } = this.session.standing;
    if (!ended || this._closing || this._focusEnd) return;
    if (document.fullscreenElement) document.exitFullscreen().catch(() => {}); // it was left at the same moment
    const { card, focus } = endedCard(ended, {
      again: () => this._deeds.again(),
      save: this._serial ? () => this._save() : null,
      close: () => this._deeds.close(),
    });
    this._focusEnd = focus;
    this._keys.stop();
    this._type.clear();
    this._side.hidden = true;
    this._screen.hidden = true; // the guest's last picture is no background for our words
    this._tell("");
    if (this._search) this._search.element.hidden = true;
    if (this._advice) this._advice.line.hidden = true;
    this._bar.element.hidden = true;
    this._foot.element.hidden = true;
    this._stage.append(card);
    if (this.element.isConnected && !this.element.hidden) focus();
  }

  /** @param {string} text */
  _tell(text) {
    const dismiss = () => button(heldTexts.dismiss, () => this._tell(""), { class: "plain" });
    this._notice.replaceChildren(...(text ? [element("span", {}, text), dismiss()] : []));
  }

  /** @param {string} text */
  _speak(text) {
    this._spoken.textContent = text;
  }

  /** Does it, and tells what went wrong. @param {() => Promise<unknown>} deed */
  async _try(deed) {
    try {
      await deed();
    } catch (error) {
      this._tell(sentence(error));
    }
  }
}
