// @ts-check
// Strangers' words as a person may look at them: what has no shape, or turns the line around, is named and not obeyed.

const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** @param {string} text */
export function visible(text) {
  return text.replace(HIDDEN, (found) => `⟨U+${(found.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}
