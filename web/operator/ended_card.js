// @ts-check
/** The end of a console, in a sentence; it stands where the console was. */

import { element, button } from "../shared/element.js";
import { endingText } from "../shared/endings.js";
import { ended as texts } from "./console_texts.js";
import { refusals } from "./texts.js";

const FOR_GOOD = new Set(["consent-expired", "consent-revoked", "feature-disabled", "vm-gone", "no-consent"]); // nothing opens again

/** Why a console ended, for a person. @param {string} reason an ending's word, a refusal's, or ours */
export function endSentence(reason) {
  return texts.reasons[reason] ?? refusals[reason] ?? endingText(reason);
}

/**
 * @param {{reason: string, atMs: number, staleBytes: number}} ended
 * @param {{again: () => void, save: (() => void) | null, close: () => void}} deeds
 */
export function endedCard(ended, deeds) {
  const time = new Date(ended.atMs).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const title = element("h2", { tabindex: "-1" }, texts.title);
  const card = element(
    "section",
    { class: "ended card", role: "alert" },
    title,
    element("p", { class: "why", "data-reason": ended.reason }, endSentence(ended.reason)),
    element("p", { class: "muted" }, texts.at(time)),
    ...(ended.staleBytes ? [element("p", {}, texts.stale(ended.staleBytes))] : []),
    element(
      "div",
      { class: "buttons" },
      ...(FOR_GOOD.has(ended.reason) ? [] : [button(texts.again, deeds.again, { class: "main" })]),
      ...(deeds.save ? [button(texts.save, deeds.save)] : []),
      button(texts.close, deeds.close),
    ),
  );
  return { card, focus: () => title.focus() };
}
