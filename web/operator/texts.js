// @ts-check
// Every English sentence of the operators' page but those of an open console, which are in console_texts.js.

/** @param {number} count @param {string} one @param {string} many */
export const some = (count, one, many) => `${count} ${count === 1 ? one : many}`;

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
    "not-again": "You are signed out: the node was started anew, or did not hear from you for more than 60 seconds. Its consoles are closed. Sign in again.",
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
  /** @param {string} time */
  until: (time) => `until ${time}`,
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
  /** @param {string} kind */
  openToView: (kind) => `${kind} (view only)`,
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

/** @type {Readonly<Record<string, string>>} by the node's refusal; others are told in the node's own words */
export const refusals = {
  "connection-lost": "The connection to the node is lost.",
  "not-watched": "The tenant consented only while watching, and is not watching now. Ask them to open their watch page.",
  "not-safelisted": "This workstation is not on the safelist of this node.",
  "no-keyboard": "The keyboard is not yours, or another key is still on its way.",
};
