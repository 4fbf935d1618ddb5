// @ts-check
// Every English sentence around an open console.

import { some } from "./texts.js";

export const status = {
  attaching: "Opening …",
  live: "Connected",
  away: "Connection lost, trying again",
  /** @param {string} left */
  graceLeft: (left) => `${left} left`,
  ended: "Ended",
  left: "left",
  leftLabel: "Time left of the consent",
  /** @param {string} left */
  soon: (left) => `${left} until the consent runs out and the console closes.`,
  /** @param {string} time */
  renewed: (time) => `The tenant has renewed the consent, until ${time}.`,
  keyboardMine: "Keyboard: yours",
  /** @param {string} account */
  keyboardTheirs: (account) => `Keyboard: ${account}`,
  keyboardFree: "Keyboard: nobody",
  viewOnly: "View only",
  take: "Take keyboard",
  alone: "Only you see this console",
  /** @param {number} count */
  people: (count) => `${count} connected`,
  tenantWatches: "The tenant watches",
  paused: "Paused by the tenant: input waits",
  another: "another operator",
};

export const people = {
  title: "Who is here",
  you: "you",
  otherTab: "you, in another tab or place",
  /** @param {string} giver */
  tenant: (giver) => `${giver}, the tenant`,
  hasKeyboard: "has the keyboard",
  mayType: "may type",
  looks: "looks only",
  watches: "watches, and can pause or stop you",
  away: "connection lost",
  hand: "Hand over",
  /** @param {string} account @param {string} kind */
  handLabel: (account, kind) => `Hand over the keyboard to ${account} (${kind})`,
  note: "One keyboard for each virtual machine. It changes hands openly, and each change is recorded.",
};

export const held = {
  /** @param {number} bytes */
  "no-echo": (bytes) => `${some(bytes, "byte", "bytes")} of your input wait: the guest has not answered. It may be busy, or may not listen.`,
  /** @param {number} bytes */
  lease: (bytes) => `${some(bytes, "byte", "bytes")} of your input wait: the node cannot confirm the consent just now.`,
  /** @param {number} bytes */
  tenant: (bytes) => `${bytes ? some(bytes, "byte", "bytes") + " of your input wait: t" : "T"}he tenant has paused input, or has stopped watching.`,
  anyway: "Send anyway",
  blocked: "The keyboard is not yours. What you type here goes nowhere.",
  blockedView: "This console is for viewing only. What you type here goes nowhere.",
  full: "That was too much at once, and none of it was sent. Use “Type text” for long texts.",
  /** @param {number} bytes */
  gap: (bytes) => `${some(bytes, "byte", "bytes")} of output came while you were away and are no longer kept.`,
  dismiss: "Dismiss",
};

export const tools = {
  label: "Console tools",
  ctrlAltDel: "Ctrl+Alt+Del",
  keys: "Keys",
  type: "Type text",
  people: "People",
  search: "Search",
  copy: "Copy",
  copyWhat: "Copy what is selected (Ctrl+Shift+C)",
  copied: "Copied.",
  notCopied: "Nothing is selected, or the browser did not allow it.",
  download: "Save output",
  fill: "Fit window",
  one: "1:1",
  full: "Full screen",
  notFull: "The browser does not allow full screen.",
  leave: "Leave",
  spoken: "Screen reader",
  sttyHint: "The guest does not know this size. Tell it:",
  sttyType: "Type it",
};

export const foot = {
  /** @param {string} giver @param {string} reason @param {string} time */
  reason: (giver, reason, time) => `${giver}, until ${time}: ${reason || "no reason given"}`,
  /** @param {string} consent @param {string} text */
  consent: (consent, text) => `Consent ${consent}\n${text}`,
  exitKeys: ["Ctrl", "Alt", "Shift"],
  exitHint: "together leave the console for its tools; every other key, Tab too, goes to the guest",
};

export const search = {
  label: "Search the output",
  next: "Next",
  previous: "Previous",
  close: "Close search",
  none: "Not found",
};

export const keys = {
  title: "Keys",
  serialNote: "These go to the virtual machine’s own keyboard, as on its screen, not to the serial line.",
  common: "Common",
  consoles: "Linux text consoles",
  sysrq: "Linux SysRq",
  /** @type {ReadonlyArray<readonly [chord: string, label: string, what: string]>} */
  chords: [
    ["Ctrl+Alt+Del", "Ctrl+Alt+Del", "Sign-in screen of Windows; restart of many Linux guests"],
    ["Win+U", "Win+U", "Accessibility of Windows; its power menu at the sign-in screen"],
    ["Alt+Tab", "Alt+Tab", "Next window"],
    ["Ctrl+Esc", "Ctrl+Esc", "Start menu"],
    ["Win", "Win", "Windows key"],
    ["Win+R", "Win+R", "Run"],
    ["Print", "Print", "Print Screen"],
    ["Alt+SysRq", "Alt+SysRq", "Print Screen of the window; SysRq on Linux"],
  ],
  /** @type {ReadonlyArray<readonly [chord: string, label: string, what: string]>} */
  sysrqs: [
    ["Alt+SysRq+S", "+S", "Write all disks"],
    ["Alt+SysRq+U", "+U", "Make all disks read-only"],
    ["Alt+SysRq+B", "+B", "Restart at once, without writing the disks"],
  ],
  boot: "Boot menu",
  bootNote: "Presses the key over and over while the guest restarts, until you stop it.",
  bootKey: "Key",
  bootTo: "Goes to",
  bootKeyboard: "keyboard",
  bootSerial: "serial line",
  bootStart: "Start pressing",
  bootRestart: "Ctrl+Alt+Del, then press",
  bootStop: "Stop",
  /** @param {string} key @param {number} count */
  pressing: (key, count) => `Pressing ${key} … ${count}`,
  stopped: "Stopped.",
  /** @param {string} what */
  sent: (what) => `${what} sent.`,
  /** @param {string} text */
  notSent: (text) => `Not sent: ${text}`,
};

export const typing = {
  title: "Type text",
  what: "Text",
  masked: "Hide it (password)",
  maskedNote: "Not shown, not kept here. The tenant who watches sees a count only.",
  layout: "Guest’s layout",
  pace: "Pace",
  paces: /** @type {ReadonlyArray<readonly [ms: number, label: string]>} */ ([
    [0, "At once"],
    [20, "Fast"],
    [60, "Normal"],
    [200, "Slow"],
  ]),
  paceNote: "A busy guest drops keys that come too fast. If it lacks some, take a slower pace.",
  enter: "Press Enter at the end",
  preview: "Will be typed",
  nothing: "nothing yet",
  /** @param {number} count */
  count: (count) => some(count, "character", "characters"),
  /** @param {string} names @param {string} layout */
  lacking: (names, layout) => `${layout} has no key for: ${names}. Change the text, or the layout.`,
  /** @param {number} count @param {string} layout */
  lackingMasked: (count, layout) => `${layout} has no key for ${some(count, "character", "characters")} of it. Choose another layout.`,
  type: "Type",
  stop: "Stop",
  /** @param {number} done @param {number} all */
  progress: (done, all) => `${done} of ${all} typed`,
  /** @param {number} done @param {number} all */
  stopped: (done, all) => `Stopped: ${done} of ${all} typed.`,
  done: "All typed.",
  /** @param {string} text */
  failed: (text) => `Not typed: ${text}`,
  newline: "↵",
  tab: "⇥",
  /** @param {string} code */
  unnamed: (code) => `U+${code}`,
};

export const ended = {
  title: "The console is closed",
  /** @param {string} time */
  at: (time) => `At ${time}.`,
  /** @param {number} bytes */
  stale: (bytes) => `The guest may still have received up to ${some(bytes, "byte", "bytes")} of what you typed last.`,
  again: "Open again",
  save: "Save output",
  close: "Close",
  /** @type {Readonly<Record<string, string>>} what no node gives as an ending */
  reasons: {
    forgotten: "The node no longer knows this session: it was restarted, or the connection was away for more than 60 seconds.",
    "not-back": "The connection was lost and did not come back within 60 seconds.",
    "operator-left": "You left the console, or were away for more than 60 seconds.",
  },
};
