// @ts-check
/** The line above all: which node, which consoles are open, and who is signed in. */

import { element, button } from "../shared/element.js";
import { bar as texts, PRODUCT } from "./texts.js";

/** @typedef {import("./console_pane.js").ConsolePane} ConsolePane */

export class TopBar {
  /** @param {{list: () => void, show: (pane: ConsolePane) => void, close: (pane: ConsolePane) => void, removeWorkstation: () => void, signOut: () => void}} deeds */
  constructor(deeds) {
    this._deeds = deeds;
    this._node = element("span", { class: "node" });
    this._list = button(texts.list, deeds.list, { class: "tab" });
    this._tabs = element("div", { class: "tabs" });
    /** @type {readonly unknown[]} */
    this._drawn = [];
    this._account = element("strong", {});
    this._address = element("span", { class: "muted" });
    this._remove = button(texts.removeWorkstation, deeds.removeWorkstation, { class: "plain" });
    const menu = element(
      "div",
      { id: "account-menu", class: "menu", popover: true },
      this._address,
      this._remove,
      button(texts.signOut, deeds.signOut, { class: "plain" }),
    );
    menu.addEventListener("click", () => menu.hidePopover());
    this._menuButton = element("button", { type: "button", class: "plain", popovertarget: "account-menu", "aria-label": texts.account }, this._account);
    this.element = element(
      "header",
      { class: "top" },
      element("span", { class: "mark", title: PRODUCT }, "EVA"),
      this._node,
      element("nav", { "aria-label": texts.consoles }, this._list, this._tabs),
      this._menuButton,
      menu,
    );
  }

  /** @param {import("./node_link.js").Who} who */
  signedIn(who) {
    this._node.textContent = who.node;
    this._account.textContent = who.account;
    this._address.textContent = texts.from(who.address);
    this._menuButton.setAttribute("aria-label", `${texts.account} ${who.account}`);
  }

  /** @param {boolean} granted */
  granted(granted) {
    this._remove.hidden = !granted;
  }

  /** @param {ConsolePane[]} panes @param {ConsolePane | null} shown null for the list */
  update(panes, shown) {
    const now = [shown, ...panes.flatMap((pane) => [pane, pane.session.state])];
    if (now.length === this._drawn.length && now.every((one, place) => one === this._drawn[place])) return; // a press may be under way
    this._drawn = now;
    current(this._list, shown === null);
    const drawn = panes.map((pane) => {
      const tab = button(pane.title, () => this._deeds.show(pane), { class: "tab" });
      current(tab, pane === shown);
      const close = button("×", () => this._deeds.close(pane), { class: "plain close", "aria-label": texts.close(pane.title) });
      return element("div", { class: `one ${pane.session.state}` }, tab, close);
    });
    const focused = [...this._tabs.querySelectorAll("button")].indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    this._tabs.replaceChildren(...drawn);
    if (focused >= 0) this._tabs.querySelectorAll("button")[focused]?.focus();
  }
}

/** @param {HTMLElement} one @param {boolean} is */
function current(one, is) {
  if (is) one.setAttribute("aria-current", "page");
  else one.removeAttribute("aria-current");
}
