// @ts-check
/** A terminal in an element: what xterm draws, and what a person does with it besides typing. */

import { FitAddon } from "../vendor/xterm/addon-fit.mjs";
import { SearchAddon } from "../vendor/xterm/addon-search.mjs";
import { Terminal } from "../vendor/xterm/xterm.mjs";
import { openStrictly } from "./strict_style.js";
import { guard } from "./terminal_guard.js";

export const COLUMNS = 80; // what a guest on a serial line believes in, unless it was told otherwise
export const ROWS = 24;
const SCROLLBACK = 10_000; // lines
const FONT = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace';
const FONT_SIZES = { least: 9, most: 22, usual: 15 }; // px
const LINE_HEIGHT = 1.1; // at 1.0 a row cuts off underscores in some sizes

const DARK = {
  background: "#0d1117", foreground: "#d5dbe3", cursor: "#7cc4ff", cursorAccent: "#0d1117", selectionBackground: "#2f5f9e",
  black: "#30363d", red: "#ff7b72", green: "#56d364", yellow: "#e3b341", blue: "#79b8ff", magenta: "#d2a8ff", cyan: "#56d4dd",
  white: "#c9d1d9", brightBlack: "#8b949e", brightRed: "#ffa198", brightGreen: "#7ee787", brightYellow: "#f2cc60",
  brightBlue: "#a5d6ff", brightMagenta: "#e2c5ff", brightCyan: "#b3f0ff", brightWhite: "#ffffff",
};

export class TerminalScreen {
  /**
   * @param {HTMLElement} element
   * @param {{readonly: boolean, label?: string}} options
   */
  constructor(element, { readonly, label = "" }) {
    /** Told with a text that was pasted: it is for a person to look at first. @type {(text: string) => void} */
    this.onpaste = () => {};
    /** Told with the terminal's size when it changes. @type {(size: {cols: number, rows: number}) => void} */
    this.onsize = () => {};
    this._element = element;
    this._readonly = readonly;
    this._fixed = true;
    this._terminal = new Terminal({
      allowProposedApi: true, cols: COLUMNS, rows: ROWS, scrollback: SCROLLBACK, disableStdin: readonly, fontFamily: FONT,
      lineHeight: LINE_HEIGHT,
      fontSize: FONT_SIZES.usual, theme: DARK, cursorBlink: false, linkHandler: null, logLevel: "off", windowOptions: {},
      macOptionIsMeta: true, rightClickSelectsWord: false, cursorInactiveStyle: "outline",
    });
    this._fit = new FitAddon();
    this._search = new SearchAddon();
    this._gone = new AbortController();
    this._resized = new ResizeObserver(() => this._arrange());
    this._open(label);
  }

  get cols() {
    return this._terminal.cols;
  }

  get rows() {
    return this._terminal.rows;
  }

  focus() {
    this._terminal.focus();
  }

  /**
   * Finds the text, from the last hit on; false where there is none.
   * @param {string} text
   * @param {{backwards?: boolean, incremental?: boolean}} [how]
   */
  search(text, { backwards = false, incremental = false } = {}) {
    if (!text) {
      this._search.clearDecorations();
      this._terminal.clearSelection();
      return false;
    }
    return backwards ? this._search.findPrevious(text) : this._search.findNext(text, { incremental });
  }

  /** What is selected; "" for nothing. */
  get selection() {
    return this._terminal.getSelection();
  }

  /** Puts what is selected on the clipboard, at a person's word. False where nothing is, or the browser does not let us. */
  async copySelection() {
    const text = this.selection;
    if (!text) return false;
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }

  /** Everything that is in the scrollback and on the screen, as text. */
  get text() {
    const { normal, alternate, active } = this._terminal.buffer;
    const lines = (/** @type {any} */ buffer) => {
      let found = "";
      for (let row = 0; row < buffer.length; row++) {
        const line = buffer.getLine(row);
        found += (row > 0 && !line.isWrapped ? "\n" : "") + line.translateToString(!buffer.getLine(row + 1)?.isWrapped);
      }
      return found.trimEnd() + "\n";
    };
    return lines(normal) + (active.type === "alternate" ? lines(alternate) : "");
  }

  /** Saves `text` as a file. @param {string} name */
  download(name) {
    const url = URL.createObjectURL(new Blob([this.text], { type: "text/plain" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads it after we return
  }

  /** 80 columns and 24 rows in the largest letters that fit, or as many as fit in the usual ones. @param {boolean} fixed */
  layOut(fixed) {
    this._fixed = fixed;
    this._arrange();
  }

  /** Whether a screen reader is served with a text of its own. @param {boolean} on */
  set spoken(on) {
    this._terminal.options.screenReaderMode = on;
  }

  scrollToEnd() {
    this._terminal.scrollToBottom();
  }

  /** Wipes screen and scrollback. */
  clear() {
    this._terminal.reset();
  }

  dispose() {
    this._gone.abort();
    this._resized.disconnect();
    this._terminal.dispose();
  }

  /** @param {string} label */
  _open(label) {
    const terminal = this._terminal;
    terminal.loadAddon(this._fit);
    terminal.loadAddon(this._search);
    guard(terminal);
    openStrictly(terminal, this._element);
    terminal.textarea?.setAttribute("aria-label", label);
    terminal.attachCustomKeyEventHandler((/** @type {KeyboardEvent} */ event) => this._isForTerminal(event));
    terminal.onResize((/** @type {{cols: number, rows: number}} */ size) => this.onsize(size));
    this._element.addEventListener(
      "paste",
      (event) => {
        event.preventDefault();
        event.stopPropagation();
        const text = event.clipboardData?.getData("text/plain") ?? "";
        if (text && !this._readonly) this.onpaste(text);
      },
      { capture: true, signal: this._gone.signal }, // the element may outlive us
    );
    this._resized.observe(this._element);
  }

  /** @param {KeyboardEvent} event */
  _isForTerminal(event) {
    if (this._readonly) return event.shiftKey && /^(Page|Home|End|Arrow)/.test(event.key);
    // Ctrl+Shift+C copies, Ctrl+Shift+V and Shift+Insert paste in a browser: none of them is a key of a serial line.
    if (event.ctrlKey && event.shiftKey && event.code === "KeyC") {
      if (event.type === "keydown") void this.copySelection();
      event.preventDefault();
      return false;
    }
    return !(event.ctrlKey && event.shiftKey && event.code === "KeyV") && !(event.shiftKey && event.code === "Insert");
  }

  _arrange() {
    const terminal = this._terminal;
    if (!this._element.clientWidth || !this._element.clientHeight) return;
    if (!this._fixed) {
      terminal.options.fontSize = FONT_SIZES.usual;
      this._fit.fit();
      return;
    }
    terminal.resize(COLUMNS, ROWS);
    for (let size = FONT_SIZES.most; size >= FONT_SIZES.least; size--) {
      terminal.options.fontSize = size;
      const room = this._fit.proposeDimensions();
      if (room && room.cols >= COLUMNS && room.rows >= ROWS) return;
    }
  }
}
