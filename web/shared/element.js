// @ts-check
// An element from a tag, its properties and what is in it. Text stays text: nothing here reads markup.

/**
 * @typedef {Record<string, string | boolean | number | undefined>} Attributes
 * @typedef {Node | string} Part
 */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes] true stands without a value; false and undefined do not stand
 * @param {...Part} parts
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, attributes = {}, ...parts) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === undefined) continue;
    made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...parts);
  return made;
}

/**
 * @param {string} text
 * @param {() => void} pressed
 * @param {Attributes} [attributes]
 */
export function button(text, pressed, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", () => {
    if (made.getAttribute("aria-disabled") !== "true") pressed();
  });
  return made;
}

/**
 * A button that can be pressed, or cannot just now and keeps the focus all the same.
 * @param {HTMLElement} one
 * @param {boolean} can
 */
export function enable(one, can) {
  if (can) one.removeAttribute("aria-disabled");
  else one.setAttribute("aria-disabled", "true");
}
