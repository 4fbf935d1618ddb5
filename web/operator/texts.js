// @ts-check
// Every English sentence of the operators' page.

/** @param {number} count @param {string} one @param {string} many */
const some = (count, one, many) => `${count} ${count === 1 ? one : many}`;

export const PRODUCT = "Emergency VM Access";

export const signIn = {
  title: "Sign in",
  /** @param {string} host */
  where: (host) => `Emergency recovery console node at ${host}`,
  account: "Account",
  password: "Password",
  action: "Sign in",
  certificate: "Use a client certificate",
  /** @param {string} name */
  oidc: (name) => `Sign in with ${name}`,
  or: "or",
  busy: "Signing in …",
  signedOut: "You are signed out.",
  /** @type {Readonly<Record<string, string>>} by the node's word, or the link's */
  why: {
    "the node is stopping": "You are signed out: the node is stopping or starting again. Every console was closed. Sign in again when it is back.",
    "the account was changed": "You are signed out: your account was changed on the node.",
    "connection-lost": "You are signed out: the connection to the node was lost and did not come back within 60 seconds. Its consoles are closed.",
    "not-again": "You are signed out: the connection to the node was lost, and your sign-in holds for one connection only. Sign in again.",
    "sign in first": "You were not signed in within five seconds. Try again.",
  },
  /** @type {Readonly<Record<string, string>>} by the refusal */
  refused: {
    "wrong-credentials": "The account or the password is wrong.",
    "rate-limited": "Too many attempts from here. Wait a minute.",
    "connection-lost": "The node does not answer. Try again.",
    stopping: "The node is starting or stopping. Try again in a moment.",
  },
  certificateRefused: "The browser sent no certificate that this node knows.",
  oidcRefused: "The sign-in did not come to an end, or its account is not one of this node's.",
  /** Why the way over the issuer came to nothing, by the node's word. @type {Record<string, string>} */
  failed: {
    unreachable: "The issuer does not answer. Sign in another way, or try again later.",
    declined: "The issuer did not sign you in.",
    "not-admitted": "You are signed in at the issuer, but your account may not use this node.",
    "rate-limited": "Too many attempts. Wait a minute.",
    broken: "The sign-in was late, or was begun in another window. Begin again.",
  },
};

export const bar = {
  list: "Virtual machines",
  consoles: "Open consoles",
  account: "Account",
  /** @param {string} address */
  from: (address) => `from ${address}`,
  removeWorkstation: "Take this workstation off the safelist",
  signOut: "Sign out",
  /** @param {string} what */
  close: (what) => `Leave ${what}`,
};

export const kinds = { serial: "Serial", graphics: "Screen" };

export const safelist = {
  /** @param {string} address @param {string} node */
  missing: (address, node) => `This workstation (${address}) is not on the safelist of ${node}, so nothing opens from here.`,
  hint: "Same as Grant-RdpAccessToErcsVM. It lasts 8 hours and is recorded.",
  grant: "Add this workstation",
  /** @param {number} cut */
  removed: (cut) => `This workstation is off the safelist. ${some(cut, "console was", "consoles were")} closed.`,
};

export const list = {
  /** @param {string} node */
  title: (node) => `What ${node} may open now`,
  find: "Find a virtual machine",
  hint: "Name, resource ID, or the tenant’s whole line: ConnectTo-TenantVm -ResourceID /subscriptions/…",
  open: "Open",
  loading: "Looking …",
  empty: "No tenant has consented to you on this node at the moment.",
  emptyMore: "A consent shows here within seconds of being given. If a tenant sent you a line to run, paste it above: another node may have it.",
  none: "Nothing here matches.",
  /** @param {number} count */
  more: (count) => `${some(count, "more consent is", "more consents are")} not shown. Paste the resource ID to open one of them.`,
  columns: { vm: "Virtual machine", reason: "Reason given by the tenant", left: "Time left", who: "Connected", open: "Open" },
  /** @param {string} group @param {string} subscription */
  where: (group, subscription) => `${group} · ${subscription}`,
  /** @param {string} giver */
  giver: (giver) => `Tenant: ${giver}`,
  noReason: "none given",
  running: "Running",
  stopped: "Not running",
  viewOnly: "View only",
  watched: "Only while watched",
  nobody: "nobody",
  tenant: "the tenant",
  /** @param {number} count */
  others: (count) => `and ${some(count, "other", "others")}`,
  /** @param {string} account @param {string} kind */
  who: (account, kind) => `${account} (${kind})`,
  /** @param {string} vm @param {string} kind */
  openLabel: (vm, kind) => `Open ${kind} of ${vm}`,
  /** @param {string} vm */
  endLabel: (vm) => `End consent for ${vm}`,
  end: "End consent",
  /** @param {string} vm @param {string} node */
  elsewhere: (vm, node) => `The consent for ${vm} is at ${node}, not here. Sign in there.`,
  /** @param {string} vm */
  notHere: (vm) => `There is no consent in force for you on ${vm} at this node.`,
  notAnId: "That is neither a resource ID nor part of a name in the list.",
  opening: "Opening …",
};

export const end = {
  /** @param {string} vm */
  title: (vm) => `End the consent for ${vm}?`,
  text: "Every console of this virtual machine is cut at once, also those of other operators, and nothing opens again until the tenant consents anew. Same as Delete-TenantVMSession.",
  action: "End consent",
  cancel: "Keep it",
  /** @param {number} sessions @param {number} us */
  done: (sessions, us) => `The consent is ended. ${some(sessions, "console was", "consoles were")} cut in ${(us / 1000).toFixed(1)} ms.`,
};

export const status = {
  attaching: "Opening …",
  live: "Connected",
  /** @param {string} left */
  away: (left) => `Connection lost, trying again: ${left} left`,
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
  leave: "Leave",
  spoken: "Screen reader",
  sttyHint: "The guest does not know this size. Tell it:",
  sttyType: "Type it",
};

export const foot = {
  /** @param {string} giver @param {string} reason */
  reason: (giver, reason) => `${giver}: ${reason || "no reason given"}`,
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

/** @type {Readonly<Record<string, string>>} by the node's refusal; others are told in the node's own words */
export const refusals = {
  "connection-lost": "The connection to the node is lost.",
  "not-watched": "The tenant consented only while watching, and is not watching now. Ask them to open their watch page.",
  "not-safelisted": "This workstation is not on the safelist of this node.",
  "no-keyboard": "The keyboard is not yours, or another key is still on its way.",
};
