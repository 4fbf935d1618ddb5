// @ts-check
// What node and provider tell, read once at the border: from here on every value has its type, or it was not let in.

/**
 * @typedef {Readonly<{session: string, account: string, kind: "serial" | "graphics", access: "view" | "keyboard",
 *   attached: boolean, keyboard: boolean, sinceMs: number}>} OperatorSession
 * @typedef {Readonly<{consent: string, resourceId: string, node: string, giver: string, reason: string,
 *   kinds: readonly ("serial" | "graphics")[], access: "view" | "keyboard", watched: boolean, expiresAt: number,
 *   remainingS: number, paused: boolean, running: boolean, operators: readonly OperatorSession[]}>} Standing
 * @typedef {Readonly<{text: string} | {key: string} | {hidden: number}>} TypedPart
 * @typedef {Readonly<{session: string, account: string, parts: readonly TypedPart[]}>} Typed
 * @typedef {Readonly<{reason: string, atMs: number, cutUs: number | null}>} Ended
 * @typedef {Readonly<{session: string, reason: string}>} SessionEnded
 * @typedef {Readonly<{session: string, ticket: string}>} Opened
 * @typedef {Readonly<{sessions: number, cutUs: number, atMs: number}>} Stopped
 */

/** What came is not what was agreed. `member`: which of it. */
export class Unintelligible extends Error {
  /** @param {string} member */
  constructor(member) {
    super(`not intelligible: ${member}`);
    this.name = "Unintelligible";
    this.member = member;
  }
}

/** The members of one JSON object. */
export class Members {
  #table;

  /** @param {unknown} table */
  constructor(table) {
    if (typeof table !== "object" || table === null || Array.isArray(table)) throw new Unintelligible("an object");
    this.#table = /** @type {Record<string, unknown>} */ (table);
  }

  /** @param {string} name */
  has(name) {
    return Object.hasOwn(this.#table, name) && this.#table[name] !== null;
  }

  /** @param {string} name */
  text(name) {
    const value = this.#own(name);
    if (typeof value !== "string") throw new Unintelligible(name);
    return value;
  }

  /** @param {string} name */
  table(name) {
    return new Members(this.#own(name));
  }

  /** @param {string} name */
  number(name) {
    const value = this.#own(name);
    if (typeof value !== "number" || !Number.isFinite(value)) throw new Unintelligible(name);
    return value;
  }

  /** @param {string} name */
  truth(name) {
    const value = this.#own(name);
    if (typeof value !== "boolean") throw new Unintelligible(name);
    return value;
  }

  /**
   * @template {string} Word
   * @param {string} name
   * @param {readonly Word[]} words
   * @returns {Word}
   */
  word(name, words) {
    const value = this.text(name);
    const found = words.find((word) => word === value);
    if (found === undefined) throw new Unintelligible(name);
    return found;
  }

  /**
   * @template Item
   * @param {string} name
   * @param {(item: unknown) => Item} read
   * @returns {readonly Item[]}
   */
  list(name, read) {
    const value = this.#own(name);
    if (!Array.isArray(value)) throw new Unintelligible(name);
    return value.map(read);
  }

  /** @param {string} name */
  #own(name) {
    return Object.hasOwn(this.#table, name) ? this.#table[name] : undefined;
  }
}

/** @type {readonly ("serial" | "graphics")[]} */
export const KINDS = ["serial", "graphics"];
/** @type {readonly ("view" | "keyboard")[]} */
const ACCESSES = ["view", "keyboard"];

/** @param {unknown} params @returns {Standing} */
export function standing(params) {
  const members = new Members(params);
  return Object.freeze({
    consent: members.text("consent"),
    resourceId: members.text("resource_id"),
    node: members.text("node"),
    giver: members.text("giver"),
    reason: members.text("reason"),
    kinds: members.list("kinds", (item) => new Members({ item }).word("item", KINDS)),
    access: members.word("access", ACCESSES),
    watched: members.truth("watched"),
    expiresAt: members.number("expires_at"),
    remainingS: members.number("remaining_s"),
    paused: members.truth("paused"),
    running: members.truth("running"),
    operators: members.list("operators", operator),
  });
}

/** Whether they say the same, but for the time left. @param {Standing} one @param {Standing} other */
export function alike(one, other) {
  return JSON.stringify({ ...one, remainingS: 0 }) === JSON.stringify({ ...other, remainingS: 0 });
}

/** @param {unknown} item @returns {OperatorSession} */
function operator(item) {
  const members = new Members(item);
  return Object.freeze({
    session: members.text("session"),
    account: members.text("account"),
    kind: members.word("kind", KINDS),
    access: members.word("access", ACCESSES),
    attached: members.truth("attached"),
    keyboard: members.truth("keyboard"),
    sinceMs: members.number("since_ms"),
  });
}

/** @param {unknown} params @returns {Typed} */
export function typed(params) {
  const members = new Members(params);
  return Object.freeze({
    session: members.text("session"),
    account: members.text("account"),
    parts: members.list("parts", (item) => {
      const part = new Members(item);
      if (part.has("hidden")) return Object.freeze({ hidden: part.number("hidden") });
      const text = part.text("text");
      return Object.freeze(part.has("key") && part.truth("key") ? { key: text } : { text });
    }),
  });
}

/** @param {unknown} params @returns {Ended} */
export function ended(params) {
  const members = new Members(params);
  const cutUs = members.has("cut_us") ? members.number("cut_us") : null;
  return Object.freeze({ reason: members.text("reason"), atMs: members.number("at_ms"), cutUs });
}

/** @param {unknown} params @returns {SessionEnded} */
export function sessionEnded(params) {
  const members = new Members(params);
  return Object.freeze({ session: members.text("session"), reason: members.text("reason") });
}

/** @param {unknown} result @returns {Opened} */
export function opened(result) {
  const members = new Members(result);
  return Object.freeze({ session: members.text("session"), ticket: members.text("ticket") });
}

/** @param {unknown} result @returns {Stopped} */
export function stopped(result) {
  const members = new Members(result);
  return Object.freeze({
    sessions: members.number("sessions"),
    cutUs: members.number("cut_us"),
    atMs: members.number("at_ms"),
  });
}

/**
 * The parts of a resource ID that a person looks for.
 * @param {string} resourceId
 */
export function machine(resourceId) {
  const [, , subscription = "", , group = "", , , , name = resourceId] = resourceId.split("/");
  return Object.freeze({ name, group, subscription });
}
