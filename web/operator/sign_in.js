// @ts-check
/** Where an operator signs in: by password, or by what the browser has. The ways are the node's to say. */

import { element, button } from "../shared/element.js";
import { RpcError } from "../shared/json_rpc.js";
import { PRODUCT, signIn as texts } from "./texts.js";

/** @typedef {{password: boolean, certificate: boolean, oidc: string | null, signed_in: boolean, failed: string | null}} Ways */

const WAYS_MS = 5_000;
const ONLY_PASSWORD = { password: true, certificate: false, oidc: null, signed_in: false, failed: null };

/** The ways of this node. @returns {Promise<Ways>} */
export async function fetchWays() {
  try {
    const signal = AbortSignal.timeout(WAYS_MS);
    const answer = await fetch("/sign-in/ways", { cache: "no-store", credentials: "same-origin", signal });
    return answer.ok ? { ...ONLY_PASSWORD, ...(await answer.json()) } : ONLY_PASSWORD;
  } catch (error) {
    // no answer, none in time, or no JSON
    if (error instanceof TypeError || error instanceof DOMException || error instanceof SyntaxError) return ONLY_PASSWORD;
    throw error;
  }
}

export class SignIn {
  /** @param {(credentials: import("./node_link.js").Credentials) => Promise<void>} signIn rejects with RpcError */
  constructor(signIn) {
    this._signIn = signIn;
    this._account = element("input", { id: "account", name: "account", autocomplete: "username", required: true, maxlength: 64, spellcheck: "false" });
    this._password = element("input", {
      id: "password", name: "password", type: "password", autocomplete: "current-password", required: true, maxlength: 1024,
    });
    this._submit = element("button", { type: "submit", class: "main wide" }, texts.action);
    this._told = element("p", { class: "told", role: "alert", tabindex: "-1" });
    this._form = element(
      "form",
      { class: "fields", novalidate: true },
      field(texts.account, this._account),
      field(texts.password, this._password),
      this._submit,
    );
    this._form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this._byPassword();
    });
    this._others = element("div", { class: "others" });
    this.element = element(
      "main",
      { class: "sign-in", "aria-labelledby": "sign-in-title" },
      element(
        "section",
        { class: "card" },
        element("p", { class: "product" }, PRODUCT),
        element("h1", { id: "sign-in-title" }, texts.title),
        element("p", { class: "muted" }, texts.where(location.host)),
        this._told,
        this._form,
        this._others,
      ),
    );
  }

  /** Shows it, with the reason why the operator is here again. @param {string} why */
  show(why) {
    this._tell(why ? (texts.why[why] ?? `${texts.signedOut} ${why}`) : "");
    this._account.focus();
  }

  /** Puts the node's ways on it, once they are known. @param {Ways} ways */
  offer(ways) {
    if (ways.failed && this._told.hidden) this._tell(texts.failed[ways.failed] ?? texts.oidcRefused);
    this._form.hidden = !ways.password;
    this._others.replaceChildren();
    if (ways.certificate) this._other(texts.certificate, () => void this._byBrowser(texts.certificateRefused));
    if (ways.oidc) this._other(texts.oidc(ways.oidc), () => location.assign("/sign-in/oidc"));
    if (ways.password && this._others.firstChild) this._others.prepend(element("p", { class: "or muted" }, texts.or));
    if (ways.signed_in) void this._byBrowser(texts.oidcRefused);
  }

  async _byPassword() {
    const credentials = { account: this._account.value.trim(), password: this._password.value };
    if (!credentials.account || !credentials.password) {
      (credentials.account ? this._password : this._account).focus();
      return;
    }
    const refused = await this._try(credentials);
    this._password.value = ""; // it is in the field no longer than it has to be
    if (refused) {
      this._tell(texts.refused[refused.reason] ?? refused.message);
      this._password.focus();
    }
  }

  /** @param {string} sentence for a refusal */
  async _byBrowser(sentence) {
    const refused = await this._try(null);
    if (refused) this._tell(refused.reason === "wrong-credentials" ? sentence : (texts.refused[refused.reason] ?? refused.message));
  }

  /** @param {import("./node_link.js").Credentials} credentials */
  async _try(credentials) {
    if (this._submit.disabled) return null;
    this._submit.disabled = true;
    this._submit.textContent = texts.busy;
    this._tell("");
    try {
      await this._signIn(credentials);
      return null;
    } catch (error) {
      if (error instanceof RpcError) return error;
      throw error;
    } finally {
      this._submit.disabled = false;
      this._submit.textContent = texts.action;
    }
  }

  /** @param {string} label @param {() => void} pressed */
  _other(label, pressed) {
    this._others.append(button(label, pressed, { class: "wide" }));
  }

  /** @param {string} text */
  _tell(text) {
    this._told.textContent = text;
    this._told.hidden = !text;
  }
}

/** @param {string} label @param {HTMLInputElement} input */
function field(label, input) {
  return element("div", {}, element("label", { for: input.id }, label), input);
}
