// @ts-check
/** JSON-RPC 2.0 over one websocket: calls, their answers, and what the node tells by itself (docs/protocol.md). */

const MAX_CALLS = 256; // calls without an answer; more is a fault of the page
const ANSWER_MS = 10_000;

/**
 * A call that the node refused, or that no answer came to. `reason` is the node's word, or "connection-lost", or "no-answer":
 * it took too long. After these two nobody here knows whether it was done.
 */
export class RpcError extends Error {
  /**
   * @param {string} reason
   * @param {string} message the node's sentence, or ours
   * @param {string | null} node another node, where the node knows that the consent is there
   */
  constructor(reason, message, node = null) {
    super(message);
    this.name = "RpcError";
    this.reason = reason;
    this.node = node;
  }

  /** Whether the node did not say what became of the call. */
  get unknown() {
    return this.reason === "connection-lost" || this.reason === "no-answer";
  }
}

export class JsonRpc {
  /**
   * @param {string} url
   * @param {string[]} subprotocols
   */
  constructor(url, subprotocols) {
    /** @type {(method: string, params: Record<string, any>) => void} */
    this.onnotice = () => {};
    /** Told once, when an open connection is over. @type {(closed: {code: number, reason: string}) => void} */
    this.onclosed = () => {};
    /** @type {Map<number, {resolve: (result: any) => void, reject: (error: RpcError) => void, late: ReturnType<typeof setTimeout>}>} */
    this._calls = new Map();
    this._next = 1;
    this._over = false;
    this._socket = new WebSocket(url, subprotocols);
    /** Settled once: the connection is open, or it never will be (RpcError "connection-lost"). @type {Promise<void>} */
    this.opened = new Promise((resolve, reject) => {
      this._socket.addEventListener("open", () => resolve());
      this._socket.addEventListener("close", () => reject(lost()));
    });
    this.opened.catch(() => {}); // one who never asks is told by onclosed
    this._socket.addEventListener("message", (event) => this._take(event.data));
    this._socket.addEventListener("close", (event) => this._finish(event.code, event.reason));
  }

  /** Whether calls can be made now. */
  get open() {
    return !this._over && this._socket.readyState === WebSocket.OPEN;
  }

  /**
   * The result of one call. Rejects with RpcError.
   * @param {string} method
   * @param {Record<string, any>} [params]
   * @param {number} [answerMs] how long the answer may take; what comes later is passed over
   * @returns {Promise<any>}
   */
  call(method, params = {}, answerMs = ANSWER_MS) {
    if (!this.open || this._calls.size >= MAX_CALLS) return Promise.reject(lost());
    const id = this._next++;
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        this._calls.delete(id);
        reject(new RpcError("no-answer", "The node has not answered in time."));
      }, answerMs);
      this._calls.set(id, { resolve, reject, late });
      this._socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    });
  }

  /** Ends the connection. `onclosed` is told at once, and no notice comes any more. */
  close(code = 1000) {
    this._socket.close(code);
    this._finish(code, "");
  }

  /** @param {unknown} data */
  _take(data) {
    if (this._over) return;
    /** @type {any} */
    let message;
    try {
      message = JSON.parse(typeof data === "string" ? data : "");
    } catch {
      message = null;
    }
    if (typeof message !== "object" || message === null) {
      this._socket.close(1000);
      this._finish(1002, "not JSON-RPC");
      return;
    }
    if (typeof message.method === "string") {
      this.onnotice(message.method, message.params ?? {});
      return;
    }
    const call = this._calls.get(message.id);
    this._calls.delete(message.id);
    if (!call) return;
    clearTimeout(call.late);
    if (message.error) {
      const { data: facts = {}, message: text = "" } = message.error;
      call.reject(new RpcError(String(facts.reason ?? "bad-request"), String(text), facts.node ?? null));
    } else {
      call.resolve(message.result);
    }
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  _finish(code, reason) {
    if (this._over) return;
    this._over = true;
    const calls = [...this._calls.values()];
    this._calls.clear();
    this.onclosed({ code, reason });
    for (const call of calls) {
      clearTimeout(call.late);
      call.reject(lost());
    }
  }
}

function lost() {
  return new RpcError("connection-lost", "The connection to the node is lost.");
}
