// @ts-check
// The page of a tenant who is signed in: who, what and how long, the consoles, what is typed, and the two buttons.

import { ConsentCard } from "./consent_card.js";
import { ConsolePane } from "./console_pane.js";
import { button, element } from "../shared/element.js";
import { RpcError } from "../shared/json_rpc.js";
import { formatRemaining } from "../shared/remaining.js";
import { sentenceOf } from "./line.js";
import { OperatorList } from "./operator_list.js";
import { endedCard, goneCard, stoppedCard } from "./over_card.js";
import { StatusBar } from "./status_bar.js";
import { StopDialog } from "./stop_dialog.js";
import * as texts from "./texts.js";
import { KINDS, alike } from "./told.js";
import { TypedLog } from "./typed_log.js";

/**
 * @typedef {import("./line.js").Line} Line
 * @typedef {import("./provider.js").Provider} Provider
 * @typedef {import("./told.js").Standing} Standing
 * @typedef {import("./told.js").Ended} Ended
 * @typedef {import("./over_card.js").Whose} Whose
 */

const SPOKEN_S = [900, 300, 60]; // the node's own marks
const KEPT = 8; // sentences that were spoken

export class WatchView {
  #line;
  /** @type {Whose} */
  #whose;
  /** @type {Standing | null} */
  #state = null;
  /** @type {Map<string, ConsolePane>} */
  #panes = new Map();
  #bar;
  #operators;
  #consent = new ConsentCard();
  #typed = new TypedLog();
  #stop;
  #consoles = element("div", { class: "panes" });
  #layouts = element("div", { class: "layouts", role: "group", "aria-label": texts.consoles.layout, hidden: true });
  #banner = element("p", { class: "banner", role: "status" }); // it stands there before it has a word
  #watched = element("p", { class: "notice", hidden: true }, texts.banner.watched);
  #spoken = element("p", { class: "unseen", role: "status", "aria-atomic": "false" });
  #main;
  #changing = ""; // what the node was asked for: to pause or to resume
  #trouble = "";
  #doubt = false; // whether input is paused: the node has not said
  #unheard = false; // the provider has not confirmed a pause: it would not go along to another node
  #why = ""; // nobody is let in just now
  #phase = "connecting";
  #over = false;
  #left = 0; // seconds, when it was last looked
  #clock = setInterval(() => this.tick(), 1_000);

  /**
   * @param {Line} line
   * @param {Provider} provider
   * @param {Whose} whose
   */
  constructor(line, provider, whose) {
    this.#line = line;
    this.#whose = whose;
    this.#operators = new OperatorList((sentence) => this.#say(sentence));
    const who = () => this.#state?.operators ?? [];
    this.#stop = new StopDialog(line, provider, who, (outcome) => this.#end(stoppedCard(outcome, this.#whose)));
    this.#bar = new StatusBar(whose.resourceId, { pause: () => void this.#turn(), stop: () => this.#stop.ask() });
    this.#main = element(
      "main",
      {},
      element("div", { class: "consoles" }, this.#layouts, this.#consoles),
      element("div", { class: "aside" }, this.#operators.element, this.#typed.element, this.#consent.element),
    );
    this.elements = [this.#bar.element, this.#banner, this.#watched, this.#main, this.#stop.element, this.#spoken];
    line.onphase = (phase, why) => this.#onphase(phase, why);
    line.onstate = (state) => this.#onstate(state);
    line.ontyped = (typed) => this.#typed.add(typed);
    line.onsession = (told) => this.#panes.forEach((pane) => pane.ended(told));
    line.onover = (told) => this.#end(endedCard(told, this.#whose));
  }

  /** Whether leaving the page ends the consent. */
  get leavingEnds() {
    return this.#state !== null && this.#state.watched;
  }

  /** The provider says that the consent has ended. @param {string} message */
  gone(message) {
    this.#end(goneCard(message, this.#whose));
  }

  /** Lets go of consoles and clocks; the line is its maker's. */
  dispose() {
    clearInterval(this.#clock);
    for (const pane of this.#panes.values()) pane.dispose();
    this.#panes.clear();
    this.#state = null;
  }

  /**
   * @param {import("./line.js").Phase} phase
   * @param {string} why
   */
  #onphase(phase, why) {
    if (phase === "lost" && this.#phase === "open") this.#say(texts.spoken.lost);
    if (phase === "open" && this.#state) this.#say(texts.spoken.live);
    this.#phase = phase;
    this.#why = why;
    if (phase === "open") this.#settle();
    this.#bar.phase(phase);
    for (const pane of this.#panes.values()) pane.line(phase === "open");
    this.#show();
  }

  /** @param {Standing} state */
  #onstate(state) {
    const before = this.#state;
    this.#state = state;
    this.#whose = { ...this.#whose, node: state.node };
    this.#bar.state(state);
    if (!before || !alike(before, state)) { // else the node only says that it is there: what a person reads or marks stays
      this.#consent.show(state);
      this.#operators.show(state.operators, state.paused);
    }
    if (!before) {
      this.#left = this.#bar.seconds;
      this.#lay(state);
    }
    for (const pane of this.#panes.values()) pane.state(state);
    this.#watched.hidden = !state.watched;
    if (before && before.paused !== state.paused) {
      this.#say(state.paused ? texts.spoken.paused : texts.spoken.resumed);
      this.#settle();
    }
    this.#show();
  }

  /** The panes of the consoles that the consent covers. @param {Standing} state */
  #lay(state) {
    for (const kind of KINDS) {
      if (!state.kinds.includes(kind)) continue;
      const pane = new ConsolePane(kind, this.#line);
      this.#panes.set(kind, pane);
      this.#consoles.append(pane.element);
    }
    if (this.#panes.size < 2) return;
    this.#layouts.hidden = false;
    for (const [word, text] of Object.entries({ both: texts.consoles.both, ...texts.CONSOLES })) {
      this.#layouts.append(button(text, () => this.#choose(word), { "data-layout": word }));
    }
    this.#choose("both");
  }

  /** @param {string} layout */
  #choose(layout) {
    this.#consoles.dataset.layout = layout;
    for (const one of this.#layouts.querySelectorAll("button")) one.setAttribute("aria-pressed", String(one.dataset.layout === layout));
  }

  /** Pause, or resume. */
  async #turn() {
    if (this.#changing || !this.#state || !this.#line.open) return;
    const resume = this.#state.paused;
    this.#changing = resume ? texts.banner.resuming : texts.banner.pausing;
    this.#settle();
    this.#show();
    try {
      const answer = await this.#line.call(resume ? "input.resume" : "input.pause");
      this.#unheard = !resume && answer?.heard === false;
    } catch (error) {
      const why = sentenceOf(error, texts.refusals, texts.errors);
      const unknown = error instanceof RpcError && error.unknown;
      if (unknown && this.#state?.paused !== resume) return; // done all the same: the state said so
      const words = unknown ? texts.banner.unknown : texts.banner;
      this.#doubt = unknown;
      this.#trouble = resume ? words.notResumed(why) : words.notPaused(why);
    } finally {
      this.#changing = "";
      this.#show();
    }
  }

  /** What is known of Pause is what the state says. */
  #settle() {
    this.#trouble = "";
    this.#doubt = false;
    this.#unheard = false;
  }

  #show() {
    const paused = this.#state?.paused ?? false;
    this.#bar.show({ paused, canPause: this.#phase === "open" && !this.#changing && this.#state !== null });
    document.body.classList.toggle("paused", paused);
    const [text, look] = this.#sentence(paused);
    if (this.#banner.textContent !== text) this.#banner.textContent = text; // told once to those who listen
    this.#banner.className = `banner ${look}`;
  }

  /** @param {boolean} paused @returns {[text: string, look: string]} */
  #sentence(paused) {
    if (this.#phase === "ending") return [texts.banner.ending(this.#whose.node), "bad"];
    if (this.#trouble && this.#phase === "open") return [this.#trouble, "bad"];
    if (this.#changing && this.#phase === "open") return [this.#changing, paused ? "warn" : ""];
    if (this.#phase === "lost" && this.#state) {
      const going = this.#state.watched ? texts.banner.lostWatched : texts.banner.lost;
      const known = paused && !this.#doubt ? texts.banner.lostPaused : going;
      return [[known, this.#trouble, this.#why].join(" ").trim(), "bad"];
    }
    if (!paused) return ["", ""];
    return [this.#unheard ? texts.banner.pausedHere : texts.banner.paused, "warn"];
  }

  /** Once a second. */
  tick() {
    const before = this.#left;
    this.#left = this.#bar.seconds;
    for (const mark of SPOKEN_S) if (before > mark && this.#left <= mark) this.#say(texts.spoken.remaining(formatRemaining(this.#left)));
    this.#bar.tick();
    this.#operators.tick();
    for (const pane of this.#panes.values()) pane.tick();
  }

  /** @param {string} sentence */
  #say(sentence) {
    this.#spoken.append(element("span", {}, `${sentence} `)); // beside what was said at the same moment
    while (this.#spoken.childElementCount > KEPT) this.#spoken.firstElementChild?.remove();
  }

  /** The consent is over: why stands in place of the consoles, and what was typed stays to be read. @param {HTMLElement} card */
  #end(card) {
    if (this.#over) return;
    this.#over = true;
    this.#line.close();
    this.#stop.close();
    this.dispose();
    document.body.classList.remove("paused");
    this.#banner.textContent = "";
    this.#watched.hidden = true;
    this.#bar.over();
    this.#main.replaceChildren(card, ...(this.#typed.empty ? [] : [this.#typed.element]));
    this.#main.classList.add("over");
    card.querySelector("h1")?.focus();
  }
}

