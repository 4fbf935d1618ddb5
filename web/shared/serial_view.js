// @ts-check
/** A VM's serial console in an element: xterm on the numbered streams of a session, over as many attachments as it takes. */

import { Inbound, Outbound, OutOfStep } from "./serial_stream.js";
import { TerminalScreen } from "./terminal_screen.js";

const CHUNK = 16 * 1024; // bytes of one message of input
const AHEAD = 256; // untaken bytes at which a text that is typed waits: what is not sent yet can still be stopped
const UNDRAWN = 8 * 1024 * 1024; // bytes of output that wait to be drawn: a hidden window draws next to nothing, and the guest does not wait
const LOST = 1006; // RFC 6455 7.4.1: no close frame came

/** @typedef {{notice: string, [member: string]: any}} Mark a notice of docs/protocol.md */

export class SerialView extends TerminalScreen {
  /**
   * @param {HTMLElement} element
   * @param {{readonly: boolean, label?: string}} options
   */
  constructor(element, { readonly, label = "" }) {
    super(element, { readonly, label });
    /** Told with every notice, after it took effect here. @type {(mark: Mark) => void} */
    this.onnotice = () => {};
    /** Told once for each attachment, unless we detached it. @type {(closed: {code: number, reason: string}) => void} */
    this.onclosed = () => {};
    /** Told when keys were pressed while `writable` was false. @type {() => void} */
    this.onblocked = () => {};
    /** Told when what was typed is too much to keep: none of it went. @type {(count: number) => void} */
    this.onfull = () => {};
    /** Told with how many bytes of output a drop lost, or came too fast to be drawn. @type {(count: number) => void} */
    this.ongap = () => {};
    this._writable = !readonly;
    this._inbound = new Inbound();
    this._outbound = new Outbound();
    /** @type {WebSocket | null} */
    this._socket = null;
    this._begun = false;
    this._undrawn = 0; // bytes that the terminal was given and has not drawn
    this._left = 0; // bytes that it was not given
    /** Keys that wait behind a text that is being typed. @type {Uint8Array[] | null} */
    this._behind = null;
    /** Called at each change of what is taken, or of who may type. @type {Set<() => void>} */
    this._waiting = new Set();
    const encoder = new TextEncoder();
    this._terminal.onData((/** @type {string} */ text) => this.type(encoder.encode(text)));
  }

  /** Console bytes had so far, for session.resume. */
  get received() {
    return this._inbound.received;
  }

  /** The offset that the next typed byte will have. */
  get sent() {
    return this._outbound.end;
  }

  /** Typed bytes that the node has not taken. */
  get untaken() {
    return this._outbound.untaken;
  }

  get attached() {
    return this._begun;
  }

  /** Whether what is typed goes to the guest now. */
  get writable() {
    return this._writable;
  }

  set writable(writable) {
    this._writable = writable && !this._readonly;
    this._wake();
  }

  /**
   * Attaches the session's console; a later attachment goes on where the last one stood.
   * @param {string} socketUrl
   * @param {string} subprotocol
   * @param {string} ticket
   */
  attach(socketUrl, subprotocol, ticket) {
    this.detach();
    const socket = new WebSocket(socketUrl, [subprotocol, `eva.ticket.${ticket}`]);
    socket.binaryType = "arraybuffer";
    this._socket = socket;
    socket.addEventListener("message", (event) => {
      if (this._socket === socket) this._take(event.data);
    });
    socket.addEventListener("close", (event) => this._closed(socket, event.code, event.reason));
  }

  /**
   * Types the bytes. False, and none of it goes, where the keyboard is not ours or there is no room.
   * @param {Uint8Array} bytes
   */
  type(bytes) {
    if (!this.writable) {
      this.onblocked();
      return false;
    }
    if (this._behind) {
      this._behind.push(bytes);
      return true;
    }
    if (!this._outbound.add(bytes)) {
      this.onfull(bytes.length);
      return false;
    }
    this._send();
    return true;
  }

  /**
   * Types piece after piece, never far ahead of what the guest takes; keys pressed meanwhile wait behind them all.
   * Gives how many went: fewer than there are where `signal` stopped it, or the keyboard or the console is no longer ours.
   * `announce` is told, before a piece goes, at which offset of the stream it will stand; what it throws ends the typing, and so
   * does a stream that is no longer where it was left: the keyboard was another's meanwhile, and what was not sent is dropped.
   * @param {Uint8Array[]} pieces
   * @param {{paceMs?: number, signal?: AbortSignal, announce?: (from: number, count: number) => Promise<unknown>,
   *   onprogress?: (typed: number) => void}} [how]
   */
  async typeSlowly(pieces, { paceMs = 0, signal, announce, onprogress } = {}) {
    if (!this.writable || this._behind) return 0;
    /** @type {Uint8Array[]} */
    const behind = [];
    this._behind = behind;
    let typed = 0;
    let end = this._outbound.end; // nothing else is added meanwhile
    try {
      for (const piece of pieces) {
        await this._until(() => this._outbound.untaken < AHEAD, signal);
        const goesOn = () => !signal?.aborted && this.writable && this._outbound.end === end;
        if (announce && goesOn()) await announce(end, piece.length);
        if (!goesOn() || !this._outbound.add(piece)) break;
        end += piece.length;
        this._send();
        typed += 1;
        onprogress?.(typed);
        if (paceMs) await new Promise((resolve) => setTimeout(resolve, paceMs));
      }
    } finally {
      this._behind = null;
      if (this.writable) for (const keys of behind) this.type(keys);
    }
    return typed;
  }

  /** The keyboard is another's: what was not sent yet is dropped, and counted. */
  forgetUnsent() {
    return this._outbound.forgetUnsent();
  }

  /** Ends the attachment, if there is one; nothing is told of it. */
  detach() {
    const socket = this._socket;
    this._socket = null;
    this._begun = false;
    socket?.close(1000);
  }

  dispose() {
    this.writable = false;
    this.detach();
    super.dispose();
  }

  /** Waits until it holds, or the signal stops it, or nobody types here any more. @param {() => boolean} holds @param {AbortSignal} [signal] */
  async _until(holds, signal) {
    while (!holds() && !signal?.aborted && this._writable) {
      await new Promise((resolve) => {
        const go = () => {
          this._waiting.delete(go);
          signal?.removeEventListener("abort", go);
          resolve(undefined);
        };
        this._waiting.add(go);
        signal?.addEventListener("abort", go);
      });
    }
  }

  _wake() {
    for (const go of [...this._waiting]) go();
  }

  _send() {
    const socket = this._socket;
    while (socket && this._begun && socket.readyState === WebSocket.OPEN) {
      const chunk = this._outbound.next(CHUNK);
      if (!chunk.length) return;
      socket.send(chunk);
    }
  }

  /** @param {string | ArrayBuffer} data */
  _take(data) {
    if (typeof data !== "string") {
      this._draw(this._inbound.feed(new Uint8Array(data)));
      return;
    }
    try {
      const mark = JSON.parse(data);
      if (typeof mark?.notice !== "string") throw new OutOfStep("not a notice");
      this._note(mark);
      this.onnotice(mark);
    } catch (error) {
      if (!(error instanceof OutOfStep || error instanceof SyntaxError)) throw error;
      const socket = this._socket;
      this.detach();
      if (socket) this.onclosed({ code: 4011, reason: error.message });
    }
  }

  /** Draws it, or leaves it out: then all until what waits is drawn, and it is told. @param {Uint8Array} output */
  _draw(output) {
    if (this._left || this._undrawn + output.length > UNDRAWN) {
      this._left += output.length;
      return;
    }
    this._undrawn += output.length;
    this._terminal.write(output, () => {
      this._undrawn -= output.length;
      if (this._undrawn || !this._left) return;
      this.ongap(this._left);
      this._left = 0;
    });
  }

  /** @param {Mark} mark */
  _note(mark) {
    if (mark.notice === "attached") {
      const lost = this._inbound.attach(mark.offset);
      this._outbound.attach(mark.taken);
      this._begun = true;
      if (lost) this.ongap(lost);
      this._send();
      this._wake();
    } else if (mark.notice === "taken") {
      this._outbound.taken(mark.taken);
      this._wake();
    } else if (mark.notice === "query" && !this._readonly) {
      this._answer(mark.query);
    }
  }

  /** The terminal's answer to what the guest asked, as it stands once all before the question is drawn. @param {string} query */
  _answer(query) {
    this._terminal.write("", () => {
      if (!this.writable) return;
      const { cursorX, cursorY } = this._terminal.buffer.active;
      /** @type {Record<string, string>} */
      const answers = { da1: "\x1b[?1;2c", dsr5: "\x1b[0n", dsr6: `\x1b[${cursorY + 1};${cursorX + 1}R` };
      const answer = answers[query];
      if (answer) this.type(new TextEncoder().encode(answer));
    });
  }

  /**
   * @param {WebSocket} socket
   * @param {number} code
   * @param {string} reason
   */
  _closed(socket, code, reason) {
    if (this._socket !== socket) return;
    this._socket = null;
    this._begun = false;
    this.onclosed({ code: code || LOST, reason });
  }
}
