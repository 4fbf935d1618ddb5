// @ts-check
/** A question before something that cannot be undone. */

import { element, button } from "../shared/element.js";

let number = 0;

/**
 * True when the person says yes.
 * @param {{title: string, text: string, action: string, cancel: string}} texts
 * @returns {Promise<boolean>}
 */
export function ask({ title, text, action, cancel }) {
  const id = `ask-${++number}`;
  const dialog = element(
    "dialog",
    { class: "ask", "aria-labelledby": id },
    element("h2", { id }, title),
    element("p", {}, text),
    element("div", { class: "buttons" }, button(cancel, () => dialog.close("no"), { autofocus: true }), button(action, () => dialog.close("yes"), { class: "bad" })),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
