// @ts-check
/** A VM's screen in an element: noVNC's RFB class on one ticket, with its clipboard left alone both ways. */

import RFB from "../vendor/novnc/core/rfb.js";
import scancodes from "../vendor/novnc/core/input/xtscancodes.js";
import { initLogging } from "../vendor/novnc/core/util/logging.js";

const SUBPROTOCOL = "eva.vnc.v1";

initLogging("none"); // what a guest says is no line for the console

// The key as it lies on a keyboard: E0 37. noVNC's "PrintScreen" is the code that it sends with Alt, 54.
/** @type {Record<string, number>} */ (scancodes)["EvaPrint"] = 0xe037;

export class GraphicsView {
  /**
   * @param {HTMLElement} element
   * @param {{viewOnly: boolean, label?: string}} options
   */
  constructor(element, { viewOnly, label = "" }) {
    /** Told with "connecting", "connected", "closed". @type {(state: string) => void} */
    this.onstate = () => {};
    /** Told once for each attachment, unless we detached it. @type {(closed: {code: number, reason: string}) => void} */
    this.onclosed = () => {};
    this._element = element;
    this._viewOnly = viewOnly;
    this._label = label;
    this._fit = true;
    /** @type {RFB | null} */
    this._rfb = null;
    this._connected = false;
    this._blurred = () => this.releaseKeys();
    document.addEventListener("visibilitychange", this._blurred);
  }

  get connected() {
    return this._connected;
  }

  /** The size of the guest's screen in its own pixels. */
  get size() {
    const canvas = this._canvas();
    return { width: canvas?.width ?? 0, height: canvas?.height ?? 0 };
  }

  get viewOnly() {
    return this._viewOnly;
  }

  /** Whether keys and pointer stay here. The node holds to it whatever is set. */
  set viewOnly(viewOnly) {
    if (viewOnly) this.releaseKeys();
    this._viewOnly = viewOnly;
    if (this._rfb) this._rfb.viewOnly = viewOnly;
    this._say();
  }

  /**
   * @param {string} socketUrl
   * @param {string} ticket
   */
  attach(socketUrl, ticket) {
    this.detach();
    const socket = new WebSocket(socketUrl, [SUBPROTOCOL, `eva.ticket.${ticket}`]);
    const rfb = new RFB(this._element, socket, { shared: true });
    this._rfb = rfb;
    rfb.viewOnly = this._viewOnly;
    rfb.resizeSession = false;
    rfb.showDotCursor = true;
    rfb.background = "transparent";
    rfb.addEventListener("connect", () => {
      if (this._rfb !== rfb) return;
      this._connected = true;
      this.onstate("connected");
    });
    // the way to know the code: RFB keeps it to itself
    socket.addEventListener("close", (event) => this._closed(rfb, event.code, event.reason));
    const canvas = this._canvas();
    if (canvas) {
      canvas.tabIndex = 0;
      canvas.setAttribute("aria-label", this._label);
      canvas.addEventListener("blur", this._blurred);
    }
    this._say();
    this.scale(this._fit);
    this.onstate("connecting");
  }

  /**
   * A key, as the scancode of its place on the keyboard (`code` as in KeyboardEvent.code); the keysym for a server without.
   * @param {number} keysym
   * @param {string} code
   * @param {boolean} down
   */
  sendKey(keysym, code, down) {
    this._rfb?.sendKey(keysym, code, down);
  }

  /** Lets go whatever this keyboard holds down in the guest. */
  releaseKeys() {
    // RFB lets go its keys when the window loses the focus, and has no other word for it.
    if (this._rfb) window.dispatchEvent(new FocusEvent("blur"));
  }

  /** Fits the area, or shows one of the guest's pixels as one of ours. @param {boolean} fit */
  scale(fit) {
    this._fit = fit;
    if (!this._rfb) return;
    this._rfb.scaleViewport = fit;
    this._rfb.clipViewport = false;
  }

  focus() {
    this._rfb?.focus({ preventScroll: true });
  }

  /** Ends the attachment, if there is one; nothing is told of it. */
  detach() {
    const rfb = this._rfb;
    if (!rfb) return;
    this.releaseKeys();
    this._rfb = null;
    this._connected = false;
    rfb.disconnect();
  }

  dispose() {
    this.detach();
    document.removeEventListener("visibilitychange", this._blurred);
  }

  /**
   * @param {RFB} rfb
   * @param {number} code
   * @param {string} reason
   */
  _closed(rfb, code, reason) {
    if (this._rfb !== rfb) return;
    this._rfb = null;
    this._connected = false;
    this.onstate("closed");
    this.onclosed({ code, reason });
  }

  /** What it is to who does not see it: a picture, or what takes every key to the guest. */
  _say() {
    this._canvas()?.setAttribute("role", this._viewOnly ? "img" : "application");
  }

  _canvas() {
    return this._element.querySelector("canvas");
  }
}
