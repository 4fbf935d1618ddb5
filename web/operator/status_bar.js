// @ts-check
/** What is always in sight of a console, where the guest cannot draw: which VM, how it stands, whose keyboard, who watches, how long. */

import { element, button } from "../shared/element.js";
import { formatRemaining } from "../shared/remaining.js";
import { status as texts } from "./console_texts.js";
import { CountDown } from "./count_down.js";
import { tenantOf } from "./standing.js";
import { kinds } from "./texts.js";

const CHIPS = { attaching: "chip", live: "chip good", away: "chip warn", ended: "chip bad" };

/** @typedef {import("./console_session.js").ConsoleSession} ConsoleSession */

export class StatusBar {
  /** @param {{take: () => void, people: () => void}} deeds */
  constructor({ take, people }) {
    this._name = element("h1", { class: "name" });
    this._kind = element("span", { class: "muted kind" });
    this._state = element("span", { class: "chip", role: "status" });
    this._grace = element("span", { class: "muted" }); // each second another: not to be spoken
    this._keyboard = element("span", { class: "keyboard", role: "status" });
    this.take = button(texts.take, take, { class: "main" });
    this.people = button("", people, { "aria-expanded": "false" });
    this._tenant = element("span", { class: "chip warn tenant", hidden: true }, texts.tenantWatches);
    this._paused = element("span", { class: "chip bad paused", role: "status" });
    this._countDown = new CountDown();
    this.element = element(
      "div",
      { class: "status-bar" },
      element("div", { class: "which" }, this._name, this._kind, this._state, this._grace),
      element("div", { class: "hands" }, this._keyboard, this.take),
      this._tenant,
      this._paused,
      this.people,
      this._countDown.element,
    );
  }

  /** @param {ConsoleSession} session */
  update(session) {
    const { standing, state } = session;
    const { resource_id: id, reason, giver, node } = standing.opened;
    this._name.textContent = standing.vm;
    this._name.title = `${id}\n${giver}: ${reason}`;
    this._kind.textContent = `${kinds[standing.opened.kind]} · ${node}`;
    this._state.className = CHIPS[state];
    set(this._state, texts[state]);
    this._keyboard.classList.toggle("mine", standing.mine);
    set(this._keyboard, this._keyboardText(standing));
    this.take.hidden = standing.viewOnly || standing.mine || state === "ended";
    this.take.disabled = state !== "live";
    const watching = standing.viewers.some((viewer) => tenantOf(viewer.account) !== null && viewer.attached);
    this._tenant.hidden = !watching || state === "ended";
    set(this._paused, standing.paused && state !== "ended" ? texts.paused : "");
    for (const one of [this._keyboard, this.people, this._countDown.element]) one.hidden = state === "ended";
    set(this.people, standing.viewers.length > 1 ? texts.people(standing.viewers.length) : texts.alone);
    this.tick(session);
  }

  /** @param {ConsoleSession} session */
  tick(session) {
    set(this._grace, session.state === "away" ? texts.graceLeft(formatRemaining(session.graceLeft / 1000)) : "");
    if (session.state !== "ended") this._countDown.show(session.standing.remaining.seconds);
  }

  /** @param {import("./standing.js").Standing} standing */
  _keyboardText(standing) {
    if (standing.viewOnly) return texts.viewOnly;
    if (standing.mine) return texts.keyboardMine;
    return standing.keyboard ? texts.keyboardTheirs(standing.holder?.account ?? texts.another) : texts.keyboardFree;
  }
}

/** What stays as it is, is not spoken again. @param {HTMLElement} one @param {string} text */
function set(one, text) {
  if (one.textContent !== text) one.textContent = text;
}
