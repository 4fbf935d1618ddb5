// @ts-check
/**
 * One console of the operator's, from its opening to its end, over as many connections as it takes. `surface` is what it is
 * shown on: a serial or a graphics one. A drop is mended by session.resume (serial) or by opening it again (graphics).
 */

import { endingOfCode } from "../shared/endings.js";
import { RpcError } from "../shared/json_rpc.js";
import { GRACE_MS } from "./node_link.js";
import { Standing } from "./standing.js";

const PAUSES_MS = [0, 300, 1000, 2000, 4000]; // between attempts; the last one repeats
const LASTED_MS = 5_000; // a connection that was up so long is made again at once
const LAST_WORD_MS = 500; // for the control connection to say why a console was closed
const PASSING = new Set(["connection-lost", "rate-limited", "stopping", "lease-stale", "console-busy"]); // worth another attempt

/** @typedef {"attaching" | "live" | "away" | "ended"} SessionState */
/** @typedef {import("./standing.js").Opened} Opened */
/** @typedef {{resource_id: string, kind: "serial" | "graphics", access?: "view" | "keyboard"}} Wish */
/**
 * @typedef {{attach: (url: string, ticket: string) => void, detach: () => void, received: number, mine: (mine: boolean) => void,
 *   onlive: () => void, onheld: (bytes: number, why: string) => void, onclosed: (closed: {code: number, reason: string}) => void}} Surface
 */

/** What a person is told as an ending that no node gave. */
export const FORGOTTEN = "forgotten"; // the node no longer knows the session
export const NOT_BACK = "not-back"; // the connection did not come back in time

export class ConsoleSession {
  /**
   * @param {import("./node_link.js").NodeLink} link
   * @param {Wish} wish
   * @param {Opened} opened
   * @param {Surface} surface
   */
  constructor(link, wish, opened, surface) {
    /** Told at each change of `state` or `standing`. @type {() => void} */
    this.onchange = () => {};
    this.standing = new Standing(opened);
    this.wish = wish;
    /** @type {SessionState} */
    this.state = "attaching";
    this._link = link;
    this._surface = surface;
    /** When it was seen to be away, until it is live again. @type {number | null} */
    this._awayAt = null;
    this._liveAt = 0;
    this._tries = 0; // attempts since a connection lasted
    this._mending = false;
    surface.onlive = () => this._live();
    surface.onheld = (bytes, why) => {
      this.standing.hold(bytes, why);
      this.onchange();
    };
    surface.onclosed = (closed) => void this._closed(closed);
    this._attach();
  }

  /** Milliseconds in which a dropped connection may come back. */
  get graceLeft() {
    return this._awayAt === null ? GRACE_MS : Math.max(0, this._awayAt + GRACE_MS - performance.now());
  }

  /** Takes in a notice of the node. @param {string} method @param {Record<string, any>} params */
  take(method, params) {
    if (params.session !== this.standing.session || this.state === "ended") return;
    this.standing.take(method, params);
    if (this.standing.ended) this._end();
    else this._changed();
  }

  /** The link to the node is lost: what is here goes on once it is back. */
  linkLost() {
    if (this.state !== "ended") this._away();
  }

  /** The link is there again, with another connection. */
  linkBack() {
    if (this.state !== "ended") {
      this._away();
      this._tries = 0;
      void this._mend();
    }
  }

  /** @param {string} method @param {Record<string, any>} [params] */
  ask(method, params = {}) {
    return this._link.call(method, { session: this.standing.session, ...params });
  }

  async takeKeyboard() {
    const { keyboard } = await this.ask("keyboard.take");
    if (keyboard) this.standing.keyboard = this.standing.session;
    this._changed();
  }

  /** @param {string} to a session of the same VM */
  async giveKeyboard(to) {
    await this.ask("keyboard.give", { to });
    this.standing.keyboard = to;
    this._changed();
  }

  /** Leaves, without waiting for the node's word. */
  leave() {
    if (this.state === "ended") return;
    this._link.tell("session.leave", { session: this.standing.session });
    this.standing.end("operator-left");
    this._end();
  }

  _attach() {
    this.state = "attaching";
    this._surface.attach(`${this._link.origin}/v1/console`, this.standing.opened.ticket);
    this._changed();
  }

  _live() {
    if (this.state === "ended") return;
    this.state = "live";
    this._awayAt = null;
    this._liveAt = performance.now();
    this._changed();
  }

  _away() {
    if (this.state === "live" && performance.now() - this._liveAt >= LASTED_MS) this._tries = 0;
    this._awayAt ??= performance.now();
    this.state = "away";
    this._surface.detach();
    this._changed();
  }

  _end() {
    this.state = "ended";
    this._surface.detach();
    this._changed();
  }

  _changed() {
    this._surface.mine(this.standing.mine && this.state !== "ended");
    this.onchange();
  }

  /** @param {{code: number, reason: string}} closed */
  async _closed({ code }) {
    if (this.state === "ended") return;
    const word = endingOfCode(code);
    if (word) {
      const { session } = this.standing;
      await passed(LAST_WORD_MS); // session.ended says more, and comes by another connection
      if (this.standing.session !== session) return; // it was opened anew meanwhile
      this.standing.end(word);
      this._end();
      return;
    }
    this._away();
    await this._mend();
  }

  /** Tries to go on for as long as the node keeps the session. While the link is lost there is nothing to try. */
  async _mend() {
    if (this._mending) return;
    this._mending = true;
    try {
      while (this.state === "away" && this._link.state === "in") {
        await passed(PAUSES_MS[Math.min(this._tries++, PAUSES_MS.length - 1)] ?? 0);
        if (this.state !== "away") return;
        if (!this.graceLeft) this._giveUp(NOT_BACK);
        else await this._goOn();
      }
    } finally {
      this._mending = false;
    }
  }

  /** One attempt: after it the session is away still, attaching, or ended. */
  async _goOn() {
    try {
      const opened = await this._again();
      if (this.state !== "away") return;
      this.standing.carryOn(opened);
      this._attach();
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      if (PASSING.has(error.reason)) return;
      // where it was cut meanwhile, the node has told so before it refused
      if (this.state === "away") this._giveUp(error.reason === "no-session" ? FORGOTTEN : error.reason);
    }
  }

  async _again() {
    const session = this.standing.session;
    if (this.wish.kind === "serial") return await this._link.call("session.resume", { session, received: this._surface.received });
    await this._link.call("session.leave", { session }).catch(() => {}); // it is most often over already
    return await this._link.call("session.open", this.wish);
  }

  /** @param {string} reason */
  _giveUp(reason) {
    this.standing.end(reason);
    this._end();
  }
}

/** @param {number} ms @returns {Promise<void>} */
function passed(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
