// @ts-check
/** What the node may open for this operator now: a table kept fresh, and a line that jumps to one of its rows. */

import { element, button } from "../shared/element.js";
import { formatRemaining, Remaining } from "../shared/remaining.js";
import { findResourceId, sameResource } from "./resource_line.js";
import { tenantOf } from "./standing.js";
import { kinds, list as texts } from "./texts.js";

const SOON_S = 15 * 60; // from here on the time is shown as something to mind

/**
 * @typedef {{consent: string, resource_id: string, giver: string, kinds: ("serial" | "graphics")[], access: "view" | "keyboard",
 *   watched: boolean, expires_at: number, remaining_s: number, reason: string, running: boolean, sessions: number,
 *   connected: {account: string, kind: string}[]}} Consent
 */
/** @typedef {{open: (resourceId: string, kind?: "serial" | "graphics") => void, end: (consent: Consent) => void}} Deeds */

export class ConsentList {
  /** @param {Deeds} deeds */
  constructor(deeds) {
    this._deeds = deeds;
    /** @type {{consent: Consent, remaining: Remaining, row: Row}[]} */
    this._shown = [];
    this._node = "";
    this._loaded = false;
    this._line = element("input", {
      id: "find", type: "text", class: "mono", placeholder: texts.hint, "aria-describedby": "find-told", autocomplete: "off", spellcheck: "false", maxlength: 2048,
    });
    this._told = element("p", { id: "find-told", class: "find-told", role: "status" });
    this._title = element("h1", {});
    this._rows = element("tbody", {});
    this._empty = element("div", { class: "empty" });
    this._more = element("p", { class: "muted" });
    this._table = element("table", { class: "consents" }, head(), this._rows);
    this._form = element(
      "form",
      { class: "find", role: "search" },
      element("label", { for: "find" }, texts.find),
      this._line,
      element("button", { type: "submit" }, texts.open),
    );
    this._form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._jump();
    });
    this._line.addEventListener("input", () => {
      this.tell("");
      this._filter();
    });
    this.element = element("section", { class: "list" }, this._title, this._form, this._told, this._table, this._empty, this._more);
  }

  /** A sentence about what was looked for. @param {string} text */
  tell(text) {
    this._told.textContent = text;
  }

  /** Nothing is known yet, or no longer. @param {string} node */
  clear(node) {
    this._node = node;
    this._loaded = false;
    this._show([], 0);
  }

  /** @param {{consents: Consent[], more: number}} listed */
  update({ consents, more }) {
    this._loaded = true;
    this._show(consents, more);
  }

  /** Once a second: the time goes on. */
  tick() {
    for (const { remaining, row } of this._shown) row.left(remaining.seconds);
  }

  focus() {
    this._line.focus();
  }

  /** The consent of a VM, if it is listed. @param {string} resourceId */
  find(resourceId) {
    return this._shown.find(({ consent }) => sameResource(consent.resource_id, resourceId))?.consent ?? null;
  }

  /** @param {Consent[]} consents @param {number} more */
  _show(consents, more) {
    this._title.textContent = texts.title(this._node);
    const before = new Map(this._shown.map((one) => [one.consent.consent, one]));
    this._shown = consents.map((consent) => {
      const known = before.get(consent.consent);
      before.delete(consent.consent);
      const remaining = new Remaining(consent.remaining_s);
      const row = known?.row ?? new Row(this._deeds);
      row.update(consent);
      row.left(remaining.seconds);
      return { consent, remaining, row };
    });
    for (const gone of before.values()) gone.row.element.remove();
    // a row that has its place keeps it, and with it the focus
    this._shown.forEach(({ row }, place) => {
      if (this._rows.children[place] !== row.element) this._rows.insertBefore(row.element, this._rows.children[place] ?? null);
    });
    this._more.textContent = more ? texts.more(more) : "";
    this._filter();
  }

  _filter() {
    const wanted = this._wanted();
    let hits = 0;
    for (const { consent, row } of this._shown) {
      const hit = matches(consent, wanted);
      row.element.hidden = !hit;
      if (hit) hits++;
    }
    this._table.hidden = hits === 0;
    this._empty.hidden = hits > 0;
    if (hits) return;
    const text = !this._loaded ? texts.loading : this._shown.length ? texts.none : texts.empty;
    this._empty.replaceChildren(element("p", {}, text));
    if (this._loaded && !this._shown.length) this._empty.append(element("p", { class: "muted" }, texts.emptyMore));
  }

  /** What the line asks for: a resource ID in it, or a part of a name. */
  _wanted() {
    const line = this._line.value.trim();
    return findResourceId(line)?.id ?? line;
  }

  _jump() {
    const wanted = this._wanted();
    if (!wanted) return;
    const hits = this._shown.filter(({ consent }) => matches(consent, wanted));
    const [only] = hits;
    if (only && hits.length === 1) only.row.focus();
    else if (hits.length) hits[0]?.row.focus();
    else if (findResourceId(wanted)) this._deeds.open(wanted); // the node knows more, and may know where else it is
    else this.tell(texts.notAnId);
  }
}

/** @param {Consent} consent @param {string} wanted */
function matches(consent, wanted) {
  if (findResourceId(wanted)) return sameResource(consent.resource_id, wanted);
  return [consent.resource_id, consent.reason, consent.giver].some((text) => text.toLowerCase().includes(wanted.toLowerCase()));
}

function head() {
  const { vm, reason, left, who, open } = texts.columns;
  return element("thead", {}, element("tr", {}, ...[vm, reason, left, who, open].map((text) => element("th", { scope: "col" }, text))));
}

class Row {
  /** @param {Deeds} deeds */
  constructor(deeds) {
    this._deeds = deeds;
    this._left = element("span", { class: "left" });
    this._vm = element("th", { scope: "row" });
    this._reason = element("td", { class: "reason" });
    this._who = element("td", { class: "who" });
    this._open = element("td", { class: "opens" });
    this.element = element("tr", {}, this._vm, this._reason, element("td", { class: "time" }, this._left), this._who, this._open);
    this._drawn = "";
  }

  /** @param {Consent} consent */
  update(consent) {
    const drawn = JSON.stringify({ ...consent, remaining_s: 0 });
    if (drawn === this._drawn) return; // what stays as it is keeps its focus
    this._drawn = drawn;
    const id = findResourceId(consent.resource_id);
    const vm = id?.vm ?? consent.resource_id;
    this._vm.replaceChildren(
      element("div", { class: "vm" }, element("span", { class: "name" }, vm), ...chips(consent)),
      element("div", { class: "where muted", title: consent.resource_id }, id ? texts.where(id.group, id.subscription) : ""),
    );
    this._reason.replaceChildren(
      element("div", consent.reason ? {} : { class: "muted" }, consent.reason || texts.noReason),
      element("div", { class: "muted" }, texts.giver(consent.giver)),
    );
    this._who.replaceChildren(...connected(consent));
    const buttons = [...consent.kinds].sort().reverse().map((kind) => {
      const one = button(kinds[kind], () => this._deeds.open(consent.resource_id, kind), { "aria-label": texts.openLabel(vm, kinds[kind]) });
      if (consent.running) one.classList.add("main");
      else one.disabled = true;
      return one;
    });
    const end = button(texts.end, () => this._deeds.end(consent), { class: "plain end", "aria-label": texts.endLabel(vm) });
    this._open.replaceChildren(element("div", { class: "buttons" }, ...buttons, end));
  }

  /** @param {number} seconds */
  left(seconds) {
    const text = formatRemaining(seconds);
    if (this._left.textContent !== text) this._left.textContent = text;
    this._left.classList.toggle("soon", seconds < SOON_S);
  }

  focus() {
    this.element.scrollIntoView({ block: "nearest" });
    this.element.querySelector("button")?.focus();
  }
}

/** @param {Consent} consent */
function chips(consent) {
  const found = [element("span", { class: consent.running ? "chip good" : "chip warn" }, consent.running ? texts.running : texts.stopped)];
  if (consent.access === "view") found.push(element("span", { class: "chip" }, texts.viewOnly));
  if (consent.watched) found.push(element("span", { class: "chip" }, texts.watched));
  return found;
}

/** @param {Consent} consent */
function connected(consent) {
  if (!consent.sessions) return [element("span", { class: "muted" }, texts.nobody)];
  const more = consent.sessions - consent.connected.length;
  const lines = consent.connected.map(({ account, kind }) => {
    const giver = tenantOf(account);
    const name = kinds[/** @type {"serial" | "graphics"} */ (kind)] ?? kind;
    return element("div", { class: giver === null ? "" : "tenant" }, texts.who(giver === null ? account : texts.tenant, name));
  });
  return more > 0 ? [...lines, element("div", { class: "muted" }, texts.others(more))] : lines;
}

