// @ts-check
// The line to the node: a fresh token from the provider, the watch websocket, and both again after a drop, until it is over.

import { JsonRpc, RpcError } from "../shared/json_rpc.js";
import { ProviderError } from "./provider.js";
import { Silence } from "./silence.js";
import { Unintelligible, ended, sessionEnded, standing, typed } from "./told.js";

/**
 * @typedef {import("./told.js").Standing} Standing
 * @typedef {import("./told.js").Typed} Typed
 * @typedef {import("./told.js").Ended} Ended
 * @typedef {import("./told.js").SessionEnded} SessionEnded
 * @typedef {import("./provider.js").Provider} Provider
 * @typedef {"connecting" | "open" | "lost" | "ending"} Phase "ending": the consent has ended at the node, and may go on at another
 */

const SUBPROTOCOL = "eva.watch.v1";
const TOKEN_PREFIX = "eva.token.";
const PAUSES_MS = [300, 700, 1_500, 3_000, 6_000]; // between attempts; the last one repeats
const FIRST_WORD_MS = 10_000; // for handshake and the first state
const SILENCE_MS = 12_000; // the node tells the state every 5 s (docs/protocol.md), and lets a silent watcher go within 10 s
const LOOK_MS = 1_000;
const MOVE_MS = 1_000; // until the provider knows that a node has ended a consent which goes on elsewhere
// Endings after which the node opens nothing for this consent. The others leave it standing.
const FINAL = new Set(["consent-expired", "consent-revoked", "feature-disabled", "vm-gone"]);
const NOT_NOW = 1013; // RFC 6455 7.4.1 and IANA: try again later; the node says why

/** There is no line just now. */
export class Offline extends Error {
  constructor() {
    super("offline");
    this.name = "Offline";
  }
}

/**
 * Tells by its hooks. `onphase` has why, where the provider or the node let nobody in just now; `onover`: this consent has ended; `onbarred`: the provider gives no token, for a reason that stays;
 * `onmoved`: the consent is at another node now, which this page may not reach before it was loaded anew; one that it may reach is
 * followed, and nothing is told but the phases.
 */
export class Line {
  /** @type {(phase: Phase, why: string) => void} */
  onphase = () => {};
  /** @type {(state: Standing) => void} */
  onstate = () => {};
  /** @type {(typed: Typed) => void} */
  ontyped = () => {};
  /** @type {(ended: SessionEnded) => void} */
  onsession = () => {};
  /** @type {(ended: Ended) => void} */
  onover = () => {};
  /** @type {(error: ProviderError) => void} */
  onbarred = () => {};
  /** @type {() => void} */
  onmoved = () => {};

  #provider;
  #origins;
  /** @type {JsonRpc | null} */
  #rpc = null;
  #url = "";
  #closed = false;
  #wake = () => {};
  #look = () => {};

  /**
   * @param {Provider} provider
   * @param {readonly string[]} origins that this page's policy lets it connect to
   */
  constructor(provider, origins) {
    this.#provider = provider;
    this.#origins = new Set(origins);
  }

  /** The console endpoint beside the watch endpoint. */
  get consoleUrl() {
    return new URL("/v1/console", this.#url).href;
  }

  get open() {
    return this.#rpc !== null;
  }

  /**
   * Rejects with Offline, or RpcError.
   * @param {string} method
   * @param {Record<string, unknown>} [params]
   * @returns {Promise<unknown>}
   */
  async call(method, params = {}) {
    if (this.#rpc === null) throw new Offline();
    return this.#rpc.call(method, params);
  }

  /** Ends it for good. */
  close() {
    this.#closed = true;
    this.#rpc?.close();
    this.#wake();
  }

  /** Try now what is waited for. */
  hurry() {
    this.#wake();
  }

  /** See now whether the line is dead: the page is looked at again. */
  look() {
    this.#look();
  }

  /** Runs until it is over, barred, moved or closed. */
  async run() {
    let [why, leastMs] = ["", 0];
    for (let attempt = 0; !this.#closed; attempt += 1) {
      this.onphase(attempt === 0 ? "connecting" : "lost", why);
      if (attempt > 0) await this.#pause(leastMs, attempt - 1);
      if (this.#closed) return;
      [why, leastMs] = ["", 0];
      try {
        const admission = await this.#provider.admission();
        if (this.#closed) return;
        if (!this.#origins.has(new URL(admission.watchUrl).origin)) return this.onmoved();
        const { final, lasted, said } = await this.#attend(admission.watchUrl, admission.watchToken);
        if (this.#closed) return;
        if (final && !(await this.#goesOn(final, admission.watchUrl))) {
          if (!this.#closed) this.onover(final);
          return;
        }
        if (final) attempt = -1;
        else if (lasted) attempt = 0;
        why = said;
      } catch (error) {
        if (!(error instanceof ProviderError)) throw error;
        if (!error.passing) return this.onbarred(error);
        [why, leastMs] = [error.message, error.retryS * 1_000];
      }
    }
  }

  /**
   * One connection, to its end.
   * @param {string} url
   * @param {string} token
   * @returns {Promise<{final: Ended | null, lasted: boolean, said: string}>} the consent's end if the node told it; whether it
   *   was up at all; why not, in the node's words
   */
  #attend(url, token) {
    return new Promise((resolve) => {
      const rpc = new JsonRpc(url, [SUBPROTOCOL, TOKEN_PREFIX + token]);
      /** @type {Ended | null} */
      let final = null;
      let lasted = false;
      const overdue = setTimeout(() => rpc.close(), FIRST_WORD_MS);
      /** @type {Silence | null} */
      let silence = null;
      this.#look = () => silence?.tooLong && rpc.close();
      const looks = setInterval(this.#look, LOOK_MS);
      rpc.onclosed = ({ code, reason }) => {
        clearTimeout(overdue);
        clearInterval(looks);
        this.#look = () => {};
        this.#rpc = null;
        resolve({ final, lasted, said: code === NOT_NOW ? reason : "" });
      };
      rpc.onnotice = (method, params) => {
        if (silence?.hear() === false) return rpc.close();
        try {
          if (method === "watch.ended") {
            const told = ended(params);
            if (FINAL.has(told.reason)) final = told;
          } else if (method === "watch.state") {
            const state = standing(params);
            if (!lasted) {
              lasted = true;
              clearTimeout(overdue);
              silence = new Silence(SILENCE_MS);
              [this.#rpc, this.#url] = [rpc, url];
              this.onphase("open", "");
            }
            this.onstate(state);
          } else this.#pass(method, params);
        } catch (error) {
          // a node that this page does not understand: better no line than a wrong picture
          if (!(error instanceof Unintelligible)) throw error;
          rpc.close();
        }
      };
      rpc.opened.catch(() => {}); // onclosed tells it as well
    });
  }

  /**
   * @param {string} method
   * @param {unknown} params
   */
  #pass(method, params) {
    if (method === "watch.typed") this.ontyped(typed(params));
    else if (method === "session.ended") this.onsession(sessionEnded(params));
  }

  /**
   * The node says that the consent has ended there: whether it goes on at another.
   * @param {Ended} final
   * @param {string} url of the node that said so
   */
  async #goesOn(final, url) {
    if (final.reason !== "consent-revoked") return false;
    this.onphase("ending", ""); // told before anybody is asked: the provider may take its time
    await this.#pause(MOVE_MS, 0);
    if (this.#closed) return false;
    try {
      return new URL((await this.#provider.admission()).watchUrl).origin !== new URL(url).origin;
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error;
      return false; // no token: so it is over
    }
  }

  /**
   * @param {number} leastMs
   * @param {number} attempt
   * @returns {Promise<void>} after a while, or when hurried
   */
  #pause(leastMs, attempt) {
    const pause = PAUSES_MS[Math.min(attempt, PAUSES_MS.length - 1)] ?? 0;
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(leastMs, pause * (0.8 + 0.4 * Math.random())));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/**
 * What a failed call says to a person.
 * @param {unknown} error
 * @param {Readonly<Record<string, string>>} refusals
 * @param {Readonly<{offline: string, unintelligible: string, noAnswer: string}>} texts
 */
export function sentenceOf(error, refusals, texts) {
  if (error instanceof RpcError) return refusals[error.reason] ?? error.message;
  if (error instanceof Offline) return texts.offline;
  if (error instanceof Unintelligible) return texts.unintelligible;
  if (error instanceof ProviderError) return error.message || texts.noAnswer;
  throw error;
}
