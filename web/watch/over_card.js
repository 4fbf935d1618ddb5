// @ts-check
// The end: why and when, what the node or the provider said of the cut, and how to get the record of it.

import { button, element } from "../shared/element.js";
import * as texts from "./texts.js";
import { visible } from "../shared/visible.js";

/**
 * @typedef {import("./told.js").Ended} Ended
 * @typedef {import("./stop_dialog.js").Outcome} Outcome
 * @typedef {Readonly<{resourceId: string, cid: string, node: string}>} Whose which consent, and where it was last
 */

const API_VERSION = "2020-06-01"; // of docs/rest.md

/** @param {string} iso */
const clock = (iso) => new Date(iso).toLocaleTimeString();

/** @param {number} ms */
const tenths = (ms) => (ms < 10 ? ms.toFixed(1) : ms.toFixed(0));

/**
 * The card for a consent that ended by itself or by another's doing.
 * @param {Ended} told
 * @param {Whose} whose
 */
export function endedCard(told, whose) {
  const why = texts.over.reasons[told.reason] ?? texts.over.title;
  const at = texts.over.at(new Date(told.atMs).toLocaleString());
  return card(texts.over.title, [why, at], whose, link());
}

/**
 * The card for a consent that this page has stopped.
 * @param {Outcome} outcome
 * @param {Whose} whose
 */
export function stoppedCard(outcome, whose) {
  if ("gone" in outcome) return goneCard(outcome.gone, whose);
  return card(texts.over.stopped, sentences(outcome), whose);
}

/**
 * The card for a consent that ended while this page did not reach the node: the provider says so.
 * @param {string} message with the ending's word at its end
 * @param {Whose} whose
 */
export function goneCard(message, whose) {
  const word = /([a-z-]+)\.?$/.exec(message)?.[1] ?? "";
  return card(texts.over.title, [texts.over.reasons[word] ?? message], whose);
}

/** @param {Exclude<Outcome, {gone: string}>} outcome */
function sentences(outcome) {
  if ("node" in outcome) {
    const { cutUs, atMs } = outcome.node;
    const who = outcome.cut.map((one) => texts.over.who(visible(one.account), texts.operators.on(one.kind)));
    return [
      texts.over.cut(tenths(cutUs / 1_000), tenths(outcome.roundMs)),
      who.length ? texts.over.cutOff(who.join(", ")) : texts.over.nobody,
      texts.over.reasons["consent-revoked"] ?? "",
      texts.over.at(new Date(atMs).toLocaleString()),
    ];
  }
  return [texts.over.withdrawn, ...outcome.cuts.flatMap(said)];
}

/** @param {import("./provider.js").NodeCut} cut */
function said(cut) {
  if (cut.confirmedAt === null) {
    return [cut.atLatest === null ? texts.over.notConfirmedEver(cut.node) : texts.over.notConfirmed(cut.node, clock(cut.atLatest))];
  }
  const told = [texts.over.confirmed(cut.node, clock(cut.confirmedAt))];
  if (cut.cutMs !== null && cut.sessions !== null) told.push(texts.over.confirmedCut(cut.node, cut.sessions, tenths(cut.cutMs)));
  return told;
}

function link() {
  return element("p", {}, element("a", { href: location.pathname }, texts.over.look));
}

/**
 * @param {string} title
 * @param {readonly string[]} lines
 * @param {Whose} whose
 * @param {...Node} more
 */
function card(title, lines, { resourceId, cid, node }, ...more) {
  const path = `${resourceId}/vmAccess/receipt?api-version=${API_VERSION}&consentId=${encodeURIComponent(cid)}`;
  return element(
    "section",
    { class: "card end", "aria-labelledby": "over-title" },
    element("h1", { id: "over-title", tabindex: -1 }, title),
    ...lines.map((line, place) => element("p", place === 0 ? { class: "lead" } : {}, line)),
    ...more,
    element("h2", {}, texts.over.receipt),
    element("p", {}, texts.over.receiptWhat),
    command(`az rest --method get --url '${path}' > receipt.json`),
    command(`eva-provider verify-receipt receipt.json --node-key ${node}.pub`),
    element("p", { class: "muted" }, texts.over.close),
  );
}

/** @param {string} text */
function command(text) {
  const copy = button(texts.over.copy, () => {
    navigator.clipboard.writeText(text).then(
      () => (copy.textContent = texts.over.copied),
      () => getSelection()?.selectAllChildren(code), // the browser does not let us: at least it is marked
    );
  });
  const code = element("code", { tabindex: 0 }, text);
  return element("div", { class: "command" }, code, copy);
}
