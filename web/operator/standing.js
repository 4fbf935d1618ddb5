// @ts-check
/** How one session stands, as the node tells it. No page, no network: what shows it reads it. */

import { Remaining } from "../shared/remaining.js";

const TENANT = "tenant:"; // how the account of a tenant who watches begins
const MAX_VIEWERS = 64;

/** @typedef {{session: string, account: string, kind: string, access: string, attached: boolean}} Viewer */
/**
 * @typedef {{session: string, ticket: string, kind: "serial" | "graphics", access: "view" | "keyboard", keyboard: boolean, consent: string,
 *   resource_id: string, node: string, giver: string, reason: string, expires_at: number, remaining_s: number}} Opened
 */

export class Standing {
  /** @param {Opened} opened @param {() => number} [nowMs] */
  constructor(opened, nowMs) {
    this.opened = opened;
    this.session = opened.session;
    this.remaining = new Remaining(opened.remaining_s, nowMs);
    /** @type {Viewer[]} */
    this.viewers = [];
    /** The session that has the keyboard. @type {string | null} */
    this.keyboard = opened.keyboard ? opened.session : null;
    this.held = { bytes: 0, why: "" };
    /** Whether the tenant lets no input pass. */
    this.paused = false;
    /** @type {{reason: string, atMs: number, staleBytes: number} | null} */
    this.ended = null;
  }

  get vm() {
    return this.opened.resource_id.slice(this.opened.resource_id.lastIndexOf("/") + 1);
  }

  get viewOnly() {
    return this.opened.access === "view";
  }

  /** Whether what is typed here goes to the guest. */
  get mine() {
    return !this.viewOnly && this.keyboard === this.session;
  }

  /** Who has the keyboard, if the node told. */
  get holder() {
    return this.viewers.find((viewer) => viewer.session === this.keyboard) ?? null;
  }

  /** Those of another person or place than this session. */
  get others() {
    return this.viewers.filter((viewer) => viewer.session !== this.session);
  }

  /** The session goes on: after a resume, or, on graphics, as another one. @param {Opened} opened */
  carryOn(opened) {
    if (opened.session !== this.session) this.paused = false; // the node tells each session anew
    this.hold(0, ""); // and what waits, if it still does
    this.opened = opened;
    this.session = opened.session;
    this.remaining.set(opened.remaining_s);
    if (opened.keyboard) this.keyboard = opened.session;
    else if (this.keyboard === opened.session) this.keyboard = null;
  }

  /** Takes in one notice of this session. @param {string} method @param {Record<string, any>} params */
  take(method, params) {
    if (method === "session.countdown") {
      this.remaining.set(params.remaining_s);
    } else if (method === "session.renewed") {
      this.remaining.set(params.remaining_s);
      this.opened = { ...this.opened, expires_at: params.expires_at };
    } else if (method === "session.viewers") {
      this.viewers = params.viewers.slice(0, MAX_VIEWERS);
      this.keyboard = params.keyboard;
    } else if (method === "session.held") {
      this.hold(params.held, params.why);
    } else if (method === "session.paused") {
      this.paused = params.paused;
    } else if (method === "session.ended") {
      this.end(params.reason, params.at_ms, params.stale_bytes ?? 0);
    }
  }

  /** What the node lists sets the clock right: this machine may have slept. @param {readonly {consent: string, remaining_s: number}[]} consents */
  listed(consents) {
    const mine = consents.find((one) => one.consent === this.opened.consent);
    if (mine && Math.abs(mine.remaining_s - this.remaining.seconds) > 1) this.remaining.set(mine.remaining_s);
  }

  /** So many bytes wait at the node. @param {number} bytes @param {string} why */
  hold(bytes, why) {
    this.held = { bytes, why: bytes ? why : "" };
  }

  /** The first end counts. @param {string} reason @param {number} [atMs] @param {number} [staleBytes] */
  end(reason, atMs = Date.now(), staleBytes = 0) {
    this.ended ??= { reason, atMs, staleBytes };
  }
}

/** The tenant behind a viewer's account, or null for an operator. @param {string} account */
export function tenantOf(account) {
  return account.startsWith(TENANT) ? account.slice(TENANT.length) : null;
}
