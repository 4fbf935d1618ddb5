// @ts-check
/** What may be opened of one virtual machine: the union of the consents that stand for it. Pure. */

/** @typedef {"serial" | "graphics"} Kind */
/** @typedef {"view" | "keyboard"} Access */
/**
 * @typedef {{consent: string, resource_id: string, giver: string, kinds: Kind[], access: Access, watched: boolean, expires_at: number,
 *   remaining_s: number, reason: string, running: boolean, sessions: number, connected: {account: string, kind: string}[]}} Consent
 */
/**
 * `consents`: the one that ends last comes first. `opens`: each kind, with the most that one of them allows.
 * @typedef {{resource_id: string, consents: readonly Consent[], opens: readonly {kind: Kind, access: Access}[], running: boolean,
 *   watched: boolean, sessions: number, connected: Consent["connected"]}} Machine
 */

/** @type {readonly Kind[]} */
const KINDS = ["serial", "graphics"];

/** Each virtual machine once, in the order of the first that is listed of it. @param {readonly Consent[]} consents @returns {Machine[]} */
export function machines(consents) {
  /** @type {Map<string, Consent[]>} */
  const found = new Map();
  for (const consent of consents) {
    const key = consent.resource_id.toLowerCase();
    found.set(key, [...(found.get(key) ?? []), consent]);
  }
  return [...found.values()].map(machine);
}

/** @param {Consent[]} consents @returns {Machine} */
function machine(consents) {
  const inOrder = [...consents].sort((one, other) => other.expires_at - one.expires_at);
  return {
    resource_id: inOrder[0]?.resource_id ?? "",
    consents: inOrder,
    opens: KINDS.flatMap((kind) => {
      const covering = consents.filter((one) => one.kinds.includes(kind));
      /** @type {Access} */
      const access = covering.some((one) => one.access === "keyboard") ? "keyboard" : "view";
      return covering.length ? [{ kind, access }] : [];
    }),
    running: consents.some((one) => one.running),
    watched: consents.every((one) => one.watched),
    sessions: consents.reduce((sum, one) => sum + one.sessions, 0),
    connected: consents.flatMap((one) => one.connected),
  };
}
