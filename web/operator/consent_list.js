// @ts-check
/** What the node may open for this operator now: a table kept fresh, and a line that jumps to one of its rows. */

import { element, button } from "../shared/element.js";
import { formatRemaining, Remaining } from "../shared/remaining.js";
import { machines } from "./machine.js";
import { findResourceId, sameResource } from "./resource_line.js";
import { tenantOf } from "./standing.js";
import { kinds, list as texts } from "./texts.js";

const SOON_S = 15 * 60; // from here on the time is shown as something to mind

/** @typedef {import("./machine.js").Consent} Consent */
/** @typedef {import("./machine.js").Machine} Machine */
/** @typedef {import("./machine.js").Kind} Kind */
/**
 * `open`: with the most that is consented to, where the node is to look for it; without, as the node has it.
 * @typedef {{open: (resourceId: string, kind?: Kind, access?: "keyboard") => void, end: (machine: Machine) => void}} Deeds
 */

export class ConsentList {
  /** @param {Deeds} deeds */
  constructor(deeds) {
    this._deeds = deeds;
    /** @type {{machine: Machine, row: Row}[]} */
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
    for (const { row } of this._shown) row.tick();
  }

  focus() {
    this._line.focus();
  }

  /** @param {Consent[]} consents @param {number} more */
  _show(consents, more) {
    this._title.textContent = texts.title(this._node);
    const before = new Map(this._shown.map((one) => [one.machine.resource_id.toLowerCase(), one]));
    this._shown = machines(consents).map((machine) => {
      const key = machine.resource_id.toLowerCase();
      const row = before.get(key)?.row ?? new Row(this._deeds);
      before.delete(key);
      row.update(machine);
      return { machine, row };
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
    for (const { machine, row } of this._shown) {
      const hit = matches(machine, wanted);
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
    const hits = this._shown.filter(({ machine }) => matches(machine, wanted));
    const [only] = hits;
    if (only && hits.length === 1) only.row.focus();
    else if (hits.length) hits[0]?.row.focus();
    else if (findResourceId(wanted)) this._deeds.open(wanted); // the node knows more, and may know where else it is
    else this.tell(texts.notAnId);
  }
}

/** @param {Machine} machine @param {string} wanted */
function matches({ resource_id: id, consents }, wanted) {
  if (findResourceId(wanted)) return sameResource(id, wanted);
  const texts = [id, ...consents.flatMap(({ reason, giver }) => [reason, giver])];
  return texts.some((text) => text.toLowerCase().includes(wanted.toLowerCase()));
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
    /** What stands in each cell. @type {Map<HTMLElement, string>} */
    this._drawn = new Map();
    this._remaining = new Remaining(0);
  }

  /** @param {Machine} machine */
  update(machine) {
    const { resource_id: id, consents, opens, running, sessions, connected } = machine;
    this._draw(this._vm, [id, opens, running, machine.watched], () => nameOf(machine));
    const reasons = consents.map(({ remaining_s: _, sessions: __, connected: ___, ...lasting }) => lasting);
    this._draw(this._reason, reasons, () => consents.map((consent) => reasonOf(consent, consents.length > 1)));
    this._remaining.set(Math.max(...consents.map(({ remaining_s: seconds }) => seconds)));
    this._draw(this._who, [sessions, connected], () => whoIsOn(machine));
    this._draw(this._open, [id, opens, running], () => [this._buttons(machine)]);
    this.tick();
  }

  /** What stays as it is keeps its focus, and the press that is under way. @param {HTMLElement} cell @param {unknown} what @param {() => Node[]} make */
  _draw(cell, what, make) {
    const drawn = JSON.stringify(what);
    if (this._drawn.get(cell) === drawn) return;
    this._drawn.set(cell, drawn);
    cell.replaceChildren(...make());
  }

  /** @param {Machine} machine */
  _buttons(machine) {
    const { resource_id: id, opens, running } = machine;
    const vm = findResourceId(id)?.vm ?? id;
    const some = opens.some(({ access }) => access === "keyboard");
    const buttons = opens.map(({ kind, access }) => {
      const label = some && access === "view" ? texts.openToView(kinds[kind]) : kinds[kind];
      const wished = access === "keyboard" ? access : undefined; // of two consents the node might take the longer, which may be for viewing
      const one = button(label, () => this._deeds.open(id, kind, wished), { "aria-label": texts.openLabel(vm, kinds[kind]) });
      if (running) one.classList.add("main");
      else one.disabled = true;
      return one;
    });
    const end = button(texts.end, () => this._deeds.end(machine), { class: "plain end", "aria-label": texts.endLabel(vm) });
    return element("div", { class: "buttons" }, ...buttons, end);
  }

  /** Once a second, and with each listing. */
  tick() {
    const { seconds } = this._remaining;
    const text = formatRemaining(seconds);
    if (this._left.textContent !== text) this._left.textContent = text;
    this._left.classList.toggle("soon", seconds < SOON_S);
  }

  focus() {
    this.element.scrollIntoView({ block: "nearest" });
    this.element.querySelector("button")?.focus();
  }
}

/** @param {Machine} machine @returns {Node[]} */
function nameOf({ resource_id: id, opens, running, watched }) {
  const found = findResourceId(id);
  const chips = [element("span", { class: running ? "chip good" : "chip warn" }, running ? texts.running : texts.stopped)];
  if (opens.every(({ access }) => access === "view")) chips.push(element("span", { class: "chip" }, texts.viewOnly));
  if (watched) chips.push(element("span", { class: "chip" }, texts.watched));
  return [
    element("div", { class: "vm" }, element("span", { class: "name" }, found?.vm ?? id), ...chips),
    element("div", { class: "where muted", title: id }, found ? texts.where(found.group, found.subscription) : ""),
  ];
}

/** One consent's reason; of several, with what it allows and until when. @param {Consent} consent @param {boolean} several */
function reasonOf({ reason, giver, kinds: allowed, access, watched, expires_at: end }, several) {
  const words = [...allowed].sort().reverse().map((kind) => kinds[kind]);
  if (access === "view") words.push(texts.viewOnly);
  if (watched) words.push(texts.watched);
  words.push(texts.until(new Date(end * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })));
  return element(
    "div",
    { class: "consent" },
    element("div", reason ? {} : { class: "muted" }, reason || texts.noReason),
    element("div", { class: "muted" }, texts.giver(giver) + (several ? ` · ${words.join(", ")}` : "")),
  );
}

/** @param {Machine} machine @returns {Node[]} */
function whoIsOn({ sessions, connected }) {
  if (!sessions) return [element("span", { class: "muted" }, texts.nobody)];
  const more = sessions - connected.length;
  const lines = connected.map(({ account, kind }) => {
    const giver = tenantOf(account);
    const name = kinds[/** @type {"serial" | "graphics"} */ (kind)] ?? kind;
    return element("div", { class: giver === null ? "" : "tenant" }, texts.who(giver === null ? account : texts.tenant, name));
  });
  return more > 0 ? [...lines, element("div", { class: "muted" }, texts.others(more))] : lines;
}
