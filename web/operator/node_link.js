// @ts-check
/**
 * The operator's connection to the node: signed in once, and made again by itself after a drop, for as long as the node keeps
 * a session whose connection dropped. No password is kept for that: each sign-in leaves a word for the next one, good once,
 * and it is held in this object alone.
 */

import { JsonRpc, RpcError } from "../shared/json_rpc.js";

const SUBPROTOCOL = "eva.control.v1";
export const GRACE_MS = 60_000; // the node's, broker/sessions.py
const PAUSES_MS = [200, 500, 1000, 2000, 4000]; // between attempts; the last one repeats
const ANSWER_MS = 20_000; // an open console may take the node some seconds
const SIGN_IN_MS = 10_000; // with the handshake
const BEAT_MS = 5_000; // between two looks whether the node still answers
const BEAT_ANSWER_MS = 7_000;
const GIVEN_UP = 4100; // a close code that means to come back; 1000 signs out
const SIGNED_OUT = 1008; // RFC 6455 7.4.1, policy violation: the node signs the operator out, and says why
const PASSING = new Set(["connection-lost", "rate-limited", "stopping", "lease-stale"]); // worth another attempt

/** @typedef {{account: string, groups: string[], node: string, address: string, granted: boolean}} Who */
/** @typedef {{account: string, password: string} | {again: string} | null} Credentials null: what the browser brings by itself */
/** @typedef {"out" | "in" | "lost"} LinkState */

export class NodeLink {
  /** @param {string} origin as "wss://node.example:8443" */
  constructor(origin) {
    /** Told at each change; `why` is a sentence for "out", "" where the operator asked for it. */
    this.onstate = (/** @type {LinkState} */ _state, /** @type {string} */ _why) => {};
    /** @type {(method: string, params: Record<string, any>) => void} */
    this.onnotice = () => {};
    /** What every beat asks, told with its answer. @type {(listed: any) => void} */
    this.onlisted = () => {};
    this.origin = origin;
    /** @type {Who | null} */
    this.who = null;
    /** @type {LinkState} */
    this.state = "out";
    /** @type {JsonRpc | null} */
    this._rpc = null;
    this._again = "";
    this._lostAt = 0;
    this._beat = 0;
    this._looks = 0; // the newest one sets the next beat
    this._attempt = 0; // whoever waits and finds another number here is late
  }

  /** Milliseconds of the grace that are left while the connection is lost. */
  get graceLeft() {
    return Math.max(0, this._lostAt + GRACE_MS - performance.now());
  }

  /** Signs in. Rejects with RpcError, and then the link is as it was. @param {Credentials} credentials */
  async signIn(credentials) {
    await this._connect(credentials);
    this._become("in");
  }

  /** Ends it, at the operator's word or for a reason that the operator is told. */
  signOut(why = "") {
    this._attempt++;
    this._again = "";
    this.who = null;
    this._drop();
    this._become("out", why);
  }

  /**
   * One call. Rejects with RpcError; one that is not answered in time counts as a lost connection.
   * @param {string} method
   * @param {Record<string, any>} [params]
   * @param {number} [timeout] milliseconds
   */
  async call(method, params = {}, timeout = ANSWER_MS) {
    const rpc = this._rpc;
    if (!rpc) throw new RpcError("connection-lost", "");
    return await answered(rpc, method, params, timeout, GIVEN_UP);
  }

  /** Says something that nobody waits for: the page is on its way out. @param {string} method @param {Record<string, any>} params */
  tell(method, params) {
    this._rpc?.call(method, params).catch(() => {});
  }

  /** @param {Credentials} credentials */
  async _connect(credentials) {
    const attempt = ++this._attempt;
    const rpc = new JsonRpc(`${this.origin}/v1/control`, [SUBPROTOCOL]);
    try {
      await within(rpc.opened, SIGN_IN_MS, () => rpc.close());
      const { again, ...who } = await answered(rpc, "sign_in", credentials ?? {}, SIGN_IN_MS);
      if (attempt !== this._attempt) throw new RpcError("connection-lost", "");
      this.who = who;
      this._again = again;
    } catch (error) {
      rpc.close();
      throw error;
    }
    this._rpc = rpc;
    rpc.onnotice = (method, params) => this.onnotice(method, params);
    rpc.onclosed = (closed) => this._closed(rpc, closed);
    this._beat = window.setTimeout(() => this._look(), 0);
  }

  async _look() {
    const rpc = this._rpc;
    if (!rpc) return;
    const look = ++this._looks;
    if (this.who?.granted) {
      try {
        this.onlisted(await this.call("consents.list", {}, BEAT_ANSWER_MS));
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        if (error.reason === "not-safelisted" && this.who) {
          this.who.granted = false;
          this.onlisted(null);
        }
      }
    }
    if (this._rpc === rpc && look === this._looks) this._beat = window.setTimeout(() => this._look(), BEAT_MS);
  }

  /** Asks for the list now, and not at the next beat. */
  look() {
    clearTimeout(this._beat);
    return this._look();
  }

  /**
   * @param {JsonRpc} rpc
   * @param {{code: number, reason: string}} closed
   */
  _closed(rpc, { code, reason }) {
    if (this._rpc !== rpc) return;
    this._drop();
    if (code === SIGNED_OUT) {
      this.signOut(reason);
      return;
    }
    this._lostAt = performance.now();
    this._become("lost");
    void this._reconnect();
  }

  async _reconnect() {
    for (let tries = 0; this.state === "lost"; tries++) {
      const attempt = this._attempt;
      await passed(PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)] ?? 0);
      if (attempt !== this._attempt || this.state !== "lost") return;
      try {
        await this._connect({ again: this._again });
        this._become("in");
        return;
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        if (this.state !== "lost") return;
        if (!PASSING.has(error.reason)) {
          this.signOut(error.reason === "wrong-credentials" ? "not-again" : error.message);
          return;
        }
        if (!this.graceLeft) {
          this.signOut("connection-lost");
          return;
        }
      }
    }
  }

  _drop() {
    clearTimeout(this._beat);
    const rpc = this._rpc;
    this._rpc = null;
    rpc?.close();
  }

  /** @param {LinkState} state @param {string} [why] */
  _become(state, why = "") {
    this.state = state;
    this.onstate(state, why);
  }
}

/** @param {number} ms @returns {Promise<void>} */
function passed(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * One call's result. One that is not answered in time closes the connection, and rejects with RpcError "connection-lost".
 * @param {JsonRpc} rpc
 * @param {string} method
 * @param {Record<string, any>} params
 * @param {number} ms
 * @param {number} [code] that it is closed with
 */
async function answered(rpc, method, params, ms, code) {
  try {
    return await rpc.call(method, params, ms);
  } catch (error) {
    if (!(error instanceof RpcError) || error.reason !== "no-answer") throw error;
    rpc.close(code);
    throw new RpcError("connection-lost", "");
  }
}

/**
 * What the promise gives, or RpcError "connection-lost" once it has taken too long.
 * @template T
 * @param {Promise<T>} promise
 * @param {number} ms
 * @param {() => void} late
 * @returns {Promise<T>}
 */
function within(promise, ms, late) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new RpcError("connection-lost", ""));
      late();
    }, ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
