// @ts-check
// The tenant's page, from its loading on: signed out, barred, or watching.

import { element } from "../shared/element.js";
import { Line } from "./line.js";
import { Provider, ProviderError } from "./provider.js";
import * as texts from "./texts.js";
import { machine } from "./told.js";
import { visible } from "../shared/visible.js";
import { WatchView } from "./watch_view.js";

const RETRY_MS = 5_000;
const UNAUTHENTICATED = 401;

/** The consent's id: the last word of this page's address. Nothing else of the address is looked at. */
const cid = decodeURIComponent(location.pathname.split("/").filter(Boolean).at(-1) ?? "");
const provider = new Provider(cid);
/** @type {WatchView | null} */
let view = null;
/** @type {Line | null} */
let line = null;

void begin();
window.addEventListener("pagehide", () => line?.close());
window.addEventListener("pageshow", (event) => event.persisted && location.reload());
window.addEventListener("online", () => line?.hurry());
document.addEventListener("visibilitychange", () => line?.look()); // the clocks of a hidden page go slowly
window.addEventListener("beforeunload", (event) => {
  if (view?.leavingEnds) event.preventDefault();
});

/** @param {boolean} [again] whether it failed before */
async function begin(again = false) {
  if (!again) show(card(texts.signIn.title, [texts.signIn.loading]));
  try {
    const { resourceId, node, connect } = await provider.session();
    if (again) location.reload(); // the page's policy may name no node yet
    else watch({ resourceId, cid, node }, connect);
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    bar(error);
  }
}

/**
 * @param {import("./over_card.js").Whose} whose
 * @param {readonly string[]} origins
 */
function watch(whose, origins) {
  const to = new Line(provider, origins);
  line = to;
  const shown = new WatchView(to, provider, whose);
  view = shown;
  document.title = `${visible(machine(whose.resourceId).name)} · ${texts.PRODUCT}`;
  show(...shown.elements);
  to.onbarred = (error) => (error.over ? shown.gone(error.message) : leave(() => bar(error)));
  to.onmoved = () => leave(() => location.reload()); // this page's policy does not name the new node, a new page's does
  void to.run();
}

/** @param {() => void} then */
function leave(then) {
  view?.dispose();
  line?.close();
  view = line = null;
  then();
}

/** @param {ProviderError} error */
function signIn(error) {
  const said = error.code === "SignInFailed" ? [element("p", { class: "said", role: "alert" }, error.message)] : [];
  const hint = element("p", { class: "muted" }, texts.signIn.hint);
  return card(texts.signIn.title, texts.signIn.what, ...said, signInLink(texts.signIn.action), hint);
}

/** No way in, or none any more. @param {ProviderError} error */
function bar(error) {
  if (error.status === UNAUTHENTICATED) return show(signIn(error));
  const known = texts.barred.statuses[error.status];
  if (known) {
    const [title, sentence] = known;
    const more = error.status === 403 ? [signInLink(texts.barred.again)] : [];
    return show(card(title, [sentence, ...(error.message ? [error.message] : [])], ...more));
  }
  const [title = "", sentence = ""] = texts.barred.notNow;
  show(card(title, [error.message && error.status ? error.message : texts.barred.unreachable, sentence]));
  setTimeout(() => void begin(true), Math.max(RETRY_MS, error.retryS * 1_000));
}

/** @param {string} text */
function signInLink(text) {
  return element("p", {}, element("a", { class: "button", href: provider.signIn }, text));
}

/**
 * @param {string} title
 * @param {readonly string[]} lines
 * @param {...Node} more
 */
function card(title, lines, ...more) {
  const head = element("p", { class: "product" }, texts.PRODUCT);
  return element("main", { class: "lone" }, head, element("h1", { tabindex: -1 }, title), ...lines.map((one) => element("p", {}, one)), ...more);
}

/** @param {...Node} elements */
function show(...elements) {
  document.body.classList.remove("paused");
  document.body.replaceChildren(...elements);
  /** @type {HTMLElement | null} */ (document.querySelector("h1[tabindex]"))?.focus(); // what stands here now is read to who does not see it
}
