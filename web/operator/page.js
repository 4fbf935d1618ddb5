// @ts-check
/** The operators' page: who is signed in, what may be opened, and the consoles that are open. */

import { button, element } from "../shared/element.js";
import { RpcError } from "../shared/json_rpc.js";
import { ask } from "./ask_dialog.js";
import { ConsentList } from "./consent_list.js";
import { ConsolePane, sentence } from "./console_pane.js";
import { NodeLink } from "./node_link.js";
import { findResourceId, sameResource } from "./resource_line.js";
import { fetchWays, SignIn } from "./sign_in.js";
import { end as endTexts, list as listTexts, PRODUCT, safelist as safelistTexts } from "./texts.js";
import { TopBar } from "./top_bar.js";

/** @typedef {import("./console_session.js").Wish} Wish */

class Page {
  constructor() {
    this._link = new NodeLink(location.origin.replace(/^http/, "ws"));
    this._link.onstate = (state, why) => this._linkChanged(state, why);
    this._link.onnotice = (method, params) => this._panes.forEach((pane) => pane.take(method, params));
    this._link.onlisted = (listed) => this._listed(listed);
    /** @type {ConsolePane[]} */
    this._panes = [];
    /** The console that is shown; null for the list. @type {ConsolePane | null} */
    this._shown = null;
    /** How often the person turned to something: what was asked for before is not brought before them now. */
    this._turns = 0;
    /** Consoles that are being opened. @type {Set<string>} */
    this._opening = new Set();
    this._waysAsked = 0;
    /** The console that was turned to, until it is known who has its keyboard. @type {ConsolePane | null} */
    this._turnedTo = null;
    this._in = false;
    this._signIn = new SignIn((credentials) => this._link.signIn(credentials));
    this._list = new ConsentList({ open: (...wish) => void this._open(...wish), end: (machine) => void this._end(machine) });
    this._bar = new TopBar({
      list: () => this._show(null),
      show: (pane) => this._show(pane),
      close: (pane) => this._close(pane),
      removeWorkstation: () => void this._removeWorkstation(),
      signOut: () => this._link.signOut(),
    });
    this._missing = element("div", { class: "banner warn missing", role: "status" });
    this._listView = element("div", { class: "list-view" }, this._missing, this._list.element);
    this._main = element("main", { class: "work", tabindex: "-1" }, this._listView);
    window.addEventListener("pagehide", () => this._leave());
    window.addEventListener("pageshow", (event) => event.persisted && location.reload()); // its connections are gone
    setInterval(() => this._tick(), 1000);
  }

  async start() {
    this._openSignIn("");
    await this._askWays();
  }

  /** @param {boolean} [back] whether somebody was signed in here: by a cookie they are not signed in again */
  async _askWays(back = false) {
    const asked = ++this._waysAsked;
    const ways = await fetchWays();
    if (asked !== this._waysAsked || this._in) return; // somebody was faster
    this._signIn.offer(back ? { ...ways, signed_in: false } : ways);
  }

  /** @param {string} why */
  _openSignIn(why) {
    document.title = PRODUCT;
    document.body.replaceChildren(this._signIn.element);
    this._signIn.show(why);
  }

  /** @param {import("./node_link.js").LinkState} state @param {string} why */
  _linkChanged(state, why) {
    if (state === "in" && !this._in) this._entered();
    else if (state === "in") this._panes.forEach((pane) => pane.session.linkBack());
    else if (state === "lost") this._panes.forEach((pane) => pane.session.linkLost());
    else void this._out(why);
  }

  _entered() {
    const who = this._link.who;
    if (!who) return;
    this._in = true;
    this._bar.signedIn(who);
    document.title = `${who.node} · ${PRODUCT}`;
    document.body.replaceChildren(this._bar.element, this._main);
    this._list.clear(who.node);
    this._showGranted();
    this._show(null);
  }

  /** @param {string} why */
  async _out(why) {
    for (const pane of this._panes.splice(0)) pane.dispose();
    this._shown = null;
    this._turnedTo = null;
    this._in = false;
    this._openSignIn(why); // told at once: a node that is gone does not answer what its ways are
    await this._askWays(true);
  }

  /** The console or, for null, the list. @param {ConsolePane | null} pane */
  _show(pane) {
    this._turns++;
    this._shown = pane;
    this._turnedTo = pane;
    this._listView.hidden = pane !== null;
    for (const one of this._panes) one.element.hidden = one !== pane;
    this._bar.update(this._panes, pane);
    if (!pane) {
      this._list.focus();
      return;
    }
    pane.focus();
    this._bringKeyboard();
  }

  /** The keyboard that one of this page's own consoles of a VM has goes with whoever turns to another. */
  _bringKeyboard() {
    const pane = this._turnedTo;
    if (!pane || pane.session.state !== "live" || !pane.session.standing.viewers.length) return;
    this._turnedTo = null;
    const { standing } = pane.session;
    const own = this._panes.some((one) => one !== pane && one.session.standing.session === standing.keyboard && !one.ended);
    if (own && !standing.viewOnly) void pane.takeKeyboard();
  }

  /** @param {any} listed null: this workstation is not on the safelist */
  _listed(listed) {
    this._showGranted();
    if (listed) {
      this._list.update(listed);
      for (const pane of this._panes) pane.session.standing.listed(listed.consents);
    } else if (this._link.who) this._list.clear(this._link.who.node);
  }

  _showGranted() {
    const who = this._link.who;
    if (!who) return;
    this._bar.granted(who.granted);
    this._list.element.hidden = !who.granted;
    if (who.granted) this._missing.replaceChildren();
    if (who.granted || this._missing.firstChild) return;
    this._missing.replaceChildren(
      element("p", {}, element("strong", {}, safelistTexts.missing(who.address, who.node))),
      button(safelistTexts.grant, () => void this._grantWorkstation(), { class: "main" }),
      element("p", { class: "muted" }, safelistTexts.hint),
    );
  }

  async _grantWorkstation() {
    await this._try(async () => {
      await this._link.call("workstation.grant");
      if (this._link.who) this._link.who.granted = true;
      this._showGranted();
      await this._link.look();
      this._list.focus();
    });
  }

  async _removeWorkstation() {
    await this._try(async () => {
      await this._link.call("workstation.revoke");
      if (this._link.who) this._link.who.granted = false;
      this._listed(null);
      this._show(null);
    });
  }

  /**
   * Opens a console, or shows the one that is open.
   * @param {string} resourceId
   * @param {"serial" | "graphics"} [kind]
   * @param {"view" | "keyboard"} [access] the most that the node gives, without
   */
  async _open(resourceId, kind, access) {
    const open = this._panes.find(
      (pane) => !pane.ended && sameResource(pane.session.wish.resource_id, resourceId) && (!kind || pane.session.wish.kind === kind),
    );
    if (open) {
      this._show(open);
      return;
    }
    const wish = { resource_id: resourceId, kind: kind ?? "serial", ...(access ? { access } : {}) };
    const what = `${wish.kind} ${resourceId.toLowerCase()}`;
    if (this._opening.has(what)) return; // pressed twice
    this._opening.add(what);
    this._list.tell(listTexts.opening);
    const turns = this._turns;
    try {
      const opened = await this._ask(wish);
      this._list.tell("");
      this._add(wish, opened, turns === this._turns);
    } catch (error) {
      this._list.tell(this._notOpened(resourceId, error));
    } finally {
      this._opening.delete(what);
    }
  }

  /** A new session. One that may type only while its giver watches gives way to one for viewing. @param {Wish} wish */
  async _ask({ access, ...wish }) {
    try {
      return await this._link.call("session.open", { ...wish, ...(access ? { access } : {}) });
    } catch (error) {
      if (!access || !(error instanceof RpcError) || error.reason !== "not-watched") throw error;
      return await this._link.call("session.open", wish);
    }
  }

  /** @param {string} resourceId @param {unknown} error */
  _notOpened(resourceId, error) {
    const vm = findResourceId(resourceId)?.vm ?? resourceId;
    if (error instanceof RpcError && error.reason === "no-consent") {
      return error.node ? listTexts.elsewhere(vm, error.node) : listTexts.notHere(vm);
    }
    return sentence(error);
  }

  /**
   * @param {Wish} wish
   * @param {import("./standing.js").Opened} opened
   * @param {boolean} awaited whether the person still waits for it: else what they type now is another's
   */
  _add(wish, opened, awaited) {
    if (awaited) for (const one of [this._listView, ...this._panes.map((pane) => pane.element)]) one.hidden = true;
    /** @type {ConsolePane} */
    const pane = new ConsolePane(this._link, wish, opened, this._main, {
      close: () => this._close(pane),
      again: () => void this._again(pane),
      changed: () => this._changed(),
    });
    this._panes.push(pane);
    pane.element.hidden = !awaited;
    if (awaited) this._show(pane);
    else this._bar.update(this._panes, this._shown);
  }

  _changed() {
    if (!this._in) return;
    this._bar.update(this._panes, this._shown);
    this._bringKeyboard();
  }

  /** @param {ConsolePane} pane */
  async _again(pane) {
    const { wish } = pane.session;
    this._show(null); // and no neighbour: what is typed meanwhile would go to its guest
    this._close(pane);
    await this._open(wish.resource_id, wish.kind, wish.access);
  }

  /** @param {ConsolePane} pane */
  _close(pane) {
    const place = this._panes.indexOf(pane);
    if (place < 0) return;
    this._panes.splice(place, 1);
    pane.dispose();
    if (this._shown === pane) this._show(this._panes[place] ?? this._panes[place - 1] ?? null);
    else this._bar.update(this._panes, this._shown);
    void this._link.look();
  }

  /** @param {import("./machine.js").Machine} machine */
  async _end({ resource_id: id }) {
    const vm = findResourceId(id)?.vm ?? id;
    if (!(await ask({ ...endTexts, title: endTexts.title(vm) }))) return;
    await this._try(async () => {
      const { sessions, cut_us: cutUs } = await this._link.call("session.delete", { resource_id: id });
      await this._link.look();
      this._list.focus(); // its row is gone, and the focus with it
      this._list.tell(endTexts.done(sessions, cutUs));
    });
  }

  _tick() {
    if (!this._in) return;
    this._list.tick();
    for (const pane of this._panes) pane.tick();
  }

  /** The page goes: its sessions go with it. */
  _leave() {
    for (const pane of this._panes) pane.session.leave();
  }

  /** @param {() => Promise<unknown>} deed */
  async _try(deed) {
    try {
      await deed();
    } catch (error) {
      this._list.tell(sentence(error));
    }
  }
}

void new Page().start();
