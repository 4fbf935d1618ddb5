// @ts-check
/** The tools that only one kind of console has. */

import { element, button } from "../shared/element.js";
import { COLUMNS, ROWS } from "../shared/terminal_screen.js";
import { tools as texts } from "./console_texts.js";

/**
 * @param {import("../shared/serial_view.js").SerialView} view
 * @param {{search: () => void, save: () => void, tell: (text: string) => void}} deeds
 */
export function serialTools(view, { search, save, tell }) {
  const copied = async () => tell((await view.copySelection()) ? texts.copied : texts.notCopied);
  const copy = button(texts.copy, () => void copied(), { title: texts.copyWhat });
  // a press would move the focus, and with it the selection, out of the terminal
  copy.addEventListener("mousedown", (event) => event.preventDefault());
  const fill = toggle(texts.fill, false, (on) => view.layOut(!on));
  const spoken = toggle(texts.spoken, false, (on) => (view.spoken = on));
  return [button(texts.search, search), copy, button(texts.download, save), fill, spoken];
}

/** @param {import("../shared/graphics_view.js").GraphicsView} view */
export function graphicsTools(view) {
  return [toggle(texts.one, false, (on) => view.scale(!on))];
}

/**
 * The advice for a terminal of another size than a guest on a serial line believes in.
 * @param {import("../shared/serial_view.js").SerialView} view
 */
export function sizeAdvice(view) {
  const command = element("code", {});
  const type = button(texts.sttyType, () => {
    view.type(new TextEncoder().encode(`${command.textContent}\r`));
    view.focus();
  });
  const line = element("div", { class: "banner advice", hidden: true }, texts.sttyHint, command, type);
  const show = () => {
    line.hidden = view.cols === COLUMNS && view.rows === ROWS;
    command.textContent = `stty rows ${view.rows} cols ${view.cols}`;
  };
  view.onsize = show;
  return { line, enable: (/** @type {boolean} */ can) => (type.disabled = !can) };
}

/** @param {string} label @param {boolean} on @param {(on: boolean) => void} changed */
function toggle(label, on, changed) {
  const one = button(
    label,
    () => {
      on = !on;
      one.setAttribute("aria-pressed", String(on));
      changed(on);
    },
    { "aria-pressed": String(on) },
  );
  return one;
}
