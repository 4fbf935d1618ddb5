// @ts-check
// Every English sentence of the tenant's page.

export const PRODUCT = "Emergency VM Access";

/** @type {Readonly<Record<"serial" | "graphics", string>>} */
export const CONSOLES = { serial: "Serial console", graphics: "Screen" };

/** @param {number} count @param {string} one @param {string} many */
const some = (count, one, many) => `${count} ${count === 1 ? one : many}`;

export const signIn = {
  title: "Watch your virtual machine",
  loading: "One moment …",
  what: [
    "You gave cloud operators access to a console of your virtual machine, for a few hours at most.",
    "Here you see what they see and what they type, while they do it. You can pause their input, and you can stop their access at any moment.",
  ],
  action: "Sign in to watch",
  hint: "Sign in with the account that gave the consent. Nobody else can watch, and the address of this page holds no secret.",
};

export const barred = {
  /** @type {Readonly<Record<number, readonly [string, string]>>} by the provider's status */
  statuses: {
    403: [
      "This is not yours to watch",
      "The account that you are signed in with did not give this consent, or may no longer read this virtual machine. Only the consent's giver can watch.",
    ],
    404: ["There is nothing to watch here", "No consent of yours has this address, or it cannot be watched at the node that serves it."],
    409: ["There is nothing to watch now", "The consent does not stand at a node that can be watched."],
    410: ["This access is over", "The consent has ended, so there is nothing to watch any more."],
  },
  again: "Sign in with another account",
  notNow: ["You cannot watch just now", "This page tries again by itself."],
  unreachable: "The resource provider, which this page came from, does not answer.",
};

export const bar = {
  remaining: "Access ends in",
  /** @param {string} group @param {string} subscription */
  where: (group, subscription) => `in ${group}, subscription ${subscription}`,
  /** @param {string} node */
  live: (node) => `Live from ${node}`,
  connecting: "Connecting …",
  again: "Connection lost. Connecting again …",
  ending: "Ended at this node",
  pause: "Pause input",
  resume: "Resume input",
  stop: "Stop access",
};

export const banner = {
  /** @param {string} node */
  ending: (node) => `The consent has ended at ${node}. Looking whether it goes on at another node …`,
  paused: "Paused. Nothing that an operator types reaches the virtual machine until you resume.",
  pausedHere:
    "Paused at this node: nothing that an operator types reaches the virtual machine until you resume. " +
    "The provider has not confirmed it yet: if this node is lost, pause again.",
  pausing: "Pausing …",
  resuming: "Resuming …",
  /** @param {string} why */
  notPaused: (why) => `The node did not confirm the pause: ${why} To be sure, stop the access.`,
  /** @param {string} why */
  notResumed: (why) => `The node did not confirm: ${why} Input stays paused.`,
  unknown: {
    /** @param {string} why */
    notPaused: (why) => `${why} It is not known whether input is paused. To be sure, stop the access.`,
    /** @param {string} why */
    notResumed: (why) => `${why} It is not known whether input goes through again.`,
  },
  lost: "You do not see the virtual machine at the moment, and operators may be going on. Stop works all the same, by way of the provider.",
  lostPaused: "You do not see the virtual machine at the moment. Input was paused when the connection was lost, and stays so.",
  lostWatched: "You do not see the virtual machine at the moment. Operators' input is held, and the access ends within 60 seconds unless the connection is back.",
  watched: "Only while you watch: operators can type only while this page is open. If you leave, their input is held at once and the access ends 60 seconds later, unless you are back.",
  noNode: "Without the connection to the node, input cannot be paused. Stop works all the same.",
};

export const operators = {
  title: "Who is connected",
  none: "No operator is connected.",
  noneMore: "You will see here who connects, at once.",
  /** @param {"serial" | "graphics"} kind */
  on: (kind) => (kind === "serial" ? "on the serial console" : "on the screen"),
  /** @param {string} time @param {string} ago */
  since: (time, ago) => `since ${time}, ${ago}`,
  keyboard: "can type now",
  held: "input held",
  waiting: "another has the keyboard",
  view: "only looks",
  away: "connection lost; may be back within 60 s",
};

export const typing = {
  title: "What operators type",
  serialOnly: "On the serial console, as the virtual machine echoed it.",
  none: "Nothing has been typed since you opened this page.",
  /** @param {number} count */
  hidden: (count) => `${some(count, "character", "characters")} not shown`,
  dots: "••••",
  /** @param {number} count */
  dropped: (count) => `${some(count, "earlier line is", "earlier lines are")} no longer kept.`,
};

export const consent = {
  title: "Your consent",
  reason: "Reason",
  noReason: "none given",
  giver: "Given by",
  consoles: "Consoles",
  access: "Operators may",
  /** @type {Readonly<Record<"view" | "keyboard", string>>} */
  accesses: { keyboard: "look and type", view: "only look" },
  node: "Served by",
  ends: "Ends",
  resourceId: "Resource ID",
};

export const consoles = {
  layout: "Show",
  both: "Both",
  opening: "Opening …",
  stopped: "The virtual machine is not running.",
  offline: "No connection to the node.",
  retry: "Try again",
  again: "It is opened again …",
  quiet: "Nothing has come from the virtual machine since you began to watch.",
  /** @param {"serial" | "graphics"} kind */
  label: (kind) => (kind === "serial" ? "Serial console of the virtual machine, view only" : "Screen of the virtual machine, view only"),
  viewOnly: "view only",
};

export const stop = {
  title: "Stop access now?",
  what: "Every operator is cut off at once and your consent ends. You can give a new one whenever you like.",
  now: "Stop now",
  keep: "Keep watching",
  stopping: "Stopping …",
  byProvider: "The node has not answered. Stopping by way of the provider …",
  /** @param {string} why */
  failed: (why) => `It is not stopped: ${why}`,
  retry: "Stop again",
};

export const over = {
  title: "Access is over",
  stopped: "You stopped the access",
  /** @param {string} ms @param {string} roundMs */
  cut: (ms, roundMs) => `Cut ${ms} ms after your Stop reached the node, and within ${roundMs} ms of your pressing it.`,
  /** @param {string} account @param {string} where */
  who: (account, where) => `${account} ${where}`,
  /** @param {string} who */
  cutOff: (who) => `Cut off: ${who}.`,
  nobody: "No operator was connected.",
  /** @param {string} node @param {string} time */
  confirmed: (node, time) => `${node} has confirmed, by its signature, that every console was closed at ${time}.`,
  /** @param {string} node @param {number} sessions @param {string} ms */
  confirmedCut: (node, sessions, ms) => `${node} cut ${some(sessions, "session", "sessions")} ${ms} ms after it heard of it.`,
  /** @param {string} node @param {string} time */
  notConfirmed: (node, time) => `The consent is withdrawn. ${node} has not confirmed yet; it closes every console by itself by ${time} at the latest.`,
  /** @param {string} node */
  notConfirmedEver: (node) => `The consent is withdrawn. ${node} has not confirmed yet.`,
  withdrawn: "The consent is withdrawn at the provider.",
  /** @param {string} time */
  at: (time) => `It ended at ${time}.`,
  receipt: "What was done",
  receiptWhat: "Every session was recorded by the node and signed. Fetch the receipt with your own account, and check it without trusting the provider:",
  copy: "Copy",
  copied: "Copied",
  look: "Look whether it goes on elsewhere",
  close: "You can close this page. Nothing of what it showed is kept.",
  /** @type {Readonly<Record<string, string>>} by the ending's word */
  reasons: {
    "consent-expired": "The time that you gave ran out. No operator can reach your virtual machine any more.",
    "consent-revoked": "The consent was withdrawn. No operator can reach your virtual machine any more.",
    "feature-disabled": "Emergency VM Access was switched off for your subscription. No operator can reach your virtual machine any more.",
    "vm-gone": "The virtual machine was removed or made anew. Your consent does not cover another one.",
  },
};

export const errors = {
  offline: "There is no connection to the node.",
  unintelligible: "What was answered is not intelligible.",
  noAnswer: "There was no answer.",
};

/** @type {Readonly<Record<string, string>>} what a refusal by the node means here, by its word */
export const refusals = {
  "vm-not-running": "The virtual machine is not running.",
  "console-busy": "The console is in use outside Emergency VM Access.",
  "console-failed": "The hypervisor did not open the console.",
  "lease-stale": "The node cannot reach the resource provider, so nothing new opens.",
  "too-many": "The node has as many sessions as it may.",
  "no-consent": "The consent no longer stands at this node.",
  "not-consented": "Your consent does not cover this console.",
  "audit-failed": "The node cannot write its record, so nothing opens.",
  paused: "Input is paused.",
  stopping: "The node is starting or stopping.",
  "connection-lost": "The connection to the node was lost before it answered.",
  "no-answer": "The node has not answered in time.",
};

export const spoken = {
  /** @param {string} account @param {string} where */
  came: (account, where) => `${account} has connected ${where}.`,
  /** @param {string} account @param {string} where */
  left: (account, where) => `${account} is no longer ${where}.`,
  paused: "Input is paused.",
  resumed: "Input goes through again.",
  live: "Connected.",
  lost: "Connection lost.",
  /** @param {string} left */
  remaining: (left) => `${left} left.`,
};
