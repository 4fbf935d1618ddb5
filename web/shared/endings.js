// @ts-check
/** Why a console ended, in a sentence: the words and close codes of eva/ending.py. */

/** @type {ReadonlyArray<readonly [word: string, code: number, text: string]>} */
const ENDINGS = [
  ["operator-left", 4000, "The console was left."],
  ["consent-expired", 4001, "The tenant's consent has run out."],
  ["consent-revoked", 4002, "The consent was withdrawn."],
  ["feature-disabled", 4003, "Emergency VM Access was disabled for this subscription."],
  ["lease-lost", 4004, "This node can no longer confirm that the consent stands."],
  ["vm-gone", 4005, "The virtual machine was removed or re-created."],
  ["vm-stopped", 4006, "The virtual machine stopped."],
  ["taken-over", 4007, "The session was taken up from another connection."],
  ["node-stopping", 4008, "This emergency recovery console node is stopping."],
  ["audit-failed", 4009, "The audit record cannot be written, so the console is closed."],
  ["slow-operator", 4010, "This connection was too slow for the console."],
  ["protocol-error", 4011, "The console or its client broke the protocol."],
  ["console-lost", 4012, "The hypervisor closed the console, or did not open it."],
];

const BY_WORD = new Map(ENDINGS.map(([word, , text]) => [word, text]));
const BY_CODE = new Map(ENDINGS.map(([word, code]) => [code, word]));

/** The word of a close code; null where the connection only dropped. @param {number} code */
export function endingOfCode(code) {
  return BY_CODE.get(code) ?? null;
}

/** The sentence for an ending's word. @param {string} word */
export function endingText(word) {
  return BY_WORD.get(word) ?? "The console was closed.";
}
