// @ts-check
/**
 * xterm under a policy without 'unsafe-inline'. It styles by <style> elements and by style attributes, which
 * `style-src 'self'` forbids; the same rules as constructed sheets and by CSSOM are allowed (CSP 3, 6.1.15).
 */

/** An element that stands where xterm puts a <style>, with its text in a sheet of the document. */
function sheetElement() {
  const sheet = new CSSStyleSheet();
  const element = Document.prototype.createElement.call(document, "template"); // shows nothing, wherever it stands
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, "textContent", { set: (text) => sheet.replaceSync(text) });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}

/**
 * What xterm sets on its spans for 24-bit colours.
 * @this {HTMLSpanElement}
 * @param {string} name
 * @param {string} value
 */
function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

/**
 * Opens the terminal in the element. It makes its style elements while it opens, and no other ever.
 * @param {{open: (element: HTMLElement) => void}} terminal
 * @param {HTMLElement} element
 */
export function openStrictly(terminal, element) {
  HTMLSpanElement.prototype.setAttribute = setAttribute;
  const createElement = document.createElement;
  /** @type {any} */ (document).createElement = (/** @type {string} */ name, /** @type {any} */ options) =>
    name === "style" ? sheetElement() : createElement.call(document, name, options);
  try {
    terminal.open(element);
  } finally {
    delete (/** @type {any} */ (document).createElement);
  }
}
