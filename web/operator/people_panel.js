// @ts-check
/** Who is at a VM's consoles, and to whom its keyboard can be handed. */

import { element, button } from "../shared/element.js";
import { people as texts } from "./console_texts.js";
import { tenantOf } from "./standing.js";
import { kinds } from "./texts.js";

export class PeoplePanel {
  /** @param {(session: string) => void} give */
  constructor(give) {
    this._give = give;
    this._list = element("ul", { class: "people" });
    this.element = element("section", { "aria-label": texts.title }, element("h2", {}, texts.title), this._list, element("p", { class: "muted" }, texts.note));
    this._drawn = "";
  }

  /** @param {import("./standing.js").Standing} standing @param {string} account of this operator */
  update(standing, account) {
    const drawn = JSON.stringify([standing.viewers, standing.keyboard, standing.session]);
    if (drawn === this._drawn) return;
    this._drawn = drawn;
    this._list.replaceChildren(...standing.viewers.map((viewer) => this._item(standing, viewer, account)));
  }

  /**
   * @param {import("./standing.js").Standing} standing
   * @param {import("./standing.js").Viewer} viewer
   * @param {string} account
   */
  _item(standing, viewer, account) {
    const giver = tenantOf(viewer.account);
    const self = viewer.session === standing.session;
    const kind = kinds[/** @type {"serial" | "graphics"} */ (viewer.kind)] ?? viewer.kind;
    const name = giver === null ? viewer.account : texts.tenant(giver);
    const whose = self ? ` (${texts.you})` : viewer.account === account ? ` (${texts.otherTab})` : "";
    const item = element(
      "li",
      { class: giver === null ? "" : "tenant" },
      element("div", {}, element("strong", {}, name), whose),
      element("div", { class: "muted" }, `${kind}, ${part(standing, viewer)}`),
    );
    if (standing.mine && !self && viewer.access === "keyboard" && viewer.attached) {
      item.append(button(texts.hand, () => this._give(viewer.session), { "aria-label": texts.handLabel(name, kind) }));
    }
    return item;
  }
}

/** @param {import("./standing.js").Standing} standing @param {import("./standing.js").Viewer} viewer */
function part(standing, viewer) {
  if (!viewer.attached) return texts.away;
  if (tenantOf(viewer.account) !== null) return texts.watches;
  if (viewer.session === standing.keyboard) return texts.hasKeyboard;
  return viewer.access === "keyboard" ? texts.mayType : texts.looks;
}
