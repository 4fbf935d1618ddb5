// @ts-check
// The resource provider, that this page comes from: who is signed in, tokens for the node, and the way to stop without the node.

import { Members, Unintelligible } from "./told.js";

/**
 * @typedef {Readonly<{resourceId: string, giver: string, node: string, expiresAt: string,
 *   connect: readonly string[]}>} SignedIn `connect`: the origins that this page's policy lets it connect to
 * @typedef {Readonly<{watchToken: string, watchUrl: string}>} Admission
 * @typedef {Readonly<{node: string, confirmedAt: string | null, atLatest: string | null, sessions: number | null,
 *   cutMs: number | null}>} NodeCut
 */

const PATIENCE_MS = 15_000;
const WITHDRAW_PATIENCE_MS = 60_000; // it waits for the node's signed word

/**
 * `status` 0: it was not reached, or what it said is no answer. `code`: ARM's. `retryS`: not before so many seconds.
 */
export class ProviderError extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} message
   * @param {number} retryS
   */
  constructor(status, code, message, retryS = 0) {
    super(message);
    this.name = "ProviderError";
    this.status = status;
    this.code = code;
    this.retryS = retryS;
  }

  /** Whether it says that the consent has ended. */
  get over() {
    return this.status === 410;
  }

  /** Whether asking again later can help. */
  get passing() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

export class Provider {
  #base;

  /** @param {string} cid */
  constructor(cid) {
    this.#base = `/watch/${encodeURIComponent(cid)}`;
  }

  get signIn() {
    return `${this.#base}/sign-in`;
  }

  /** Rejects with ProviderError: 401 where nobody is signed in. @returns {Promise<SignedIn>} */
  async session() {
    return this.#post("session", PATIENCE_MS, (members) => ({
      resourceId: members.text("resourceId"),
      giver: members.text("giver"),
      node: members.text("node"),
      expiresAt: members.text("expiresAt"),
      connect: members.list("connect", (item) => new Members({ item }).text("item")),
    }));
  }

  /** Rejects with ProviderError. @returns {Promise<Admission>} */
  async admission() {
    return this.#post("token", PATIENCE_MS, (members) => ({
      watchToken: members.text("watchToken"),
      watchUrl: address(members.text("watchUrl")),
    }));
  }

  /** Withdraws the consent. Rejects with ProviderError. @returns {Promise<readonly NodeCut[]>} */
  async withdraw() {
    return this.#post("withdraw", WITHDRAW_PATIENCE_MS, (members) => members.list("cuts", nodeCut));
  }

  /**
   * @template Result
   * @param {string} action
   * @param {number} patienceMs
   * @param {(members: Members) => Result} read
   * @returns {Promise<Result>}
   */
  async #post(action, patienceMs, read) {
    let answer;
    let body;
    try {
      answer = await fetch(`${this.#base}/${action}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: "{}",
        credentials: "same-origin",
        cache: "no-store",
        redirect: "error",
        signal: AbortSignal.timeout(patienceMs),
      });
      body = await answer.json();
    } catch (error) {
      // no connection, no answer in time, or no JSON: whatever lies between, the provider was not reached
      throw new ProviderError(answer && !answer.ok ? answer.status : 0, "", String(error));
    }
    try {
      if (!answer.ok) throw refusal(answer, new Members(body));
      return read(new Members(body));
    } catch (error) {
      if (error instanceof Unintelligible) throw new ProviderError(answer.ok ? 0 : answer.status, "", error.message);
      throw error;
    }
  }
}

/**
 * @param {Response} answer
 * @param {Members} body
 */
function refusal(answer, body) {
  const detail = body.table("error");
  const retryS = Number(answer.headers.get("Retry-After")) || 0;
  return new ProviderError(answer.status, detail.text("code"), detail.text("message"), retryS);
}

/** @param {string} text */
function address(text) {
  if (!URL.canParse(text)) throw new Unintelligible("an address");
  return text;
}

/** @param {unknown} item @returns {NodeCut} */
function nodeCut(item) {
  const members = new Members(item);
  return Object.freeze({
    node: members.text("ERCSName"),
    confirmedAt: members.has("confirmedAt") ? members.text("confirmedAt") : null,
    atLatest: members.has("atLatest") ? members.text("atLatest") : null,
    sessions: members.has("sessions") ? members.number("sessions") : null,
    cutMs: members.has("cutMilliseconds") ? members.number("cutMilliseconds") : null,
  });
}
