// @ts-check
/** The line below a console: what the tenant asked for, and the way out for a keyboard. */

import { element } from "../shared/element.js";
import { foot as texts } from "./console_texts.js";

/** @param {import("./standing.js").Opened} opened */
export function footLine({ giver, reason }) {
  const keys = texts.exitKeys.flatMap((key, place) => [place ? "+" : "", element("kbd", {}, key)]);
  return element(
    "footer",
    { class: "foot muted" },
    element("span", { class: "reason", title: reason }, texts.reason(giver, reason)),
    element("span", { class: "exit" }, ...keys, ` ${texts.exitHint}`),
  );
}
