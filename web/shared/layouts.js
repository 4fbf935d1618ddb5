// @ts-check
/**
 * Keyboard layouts as tables, to type a text as keystrokes: what each key gives by itself, with Shift and with AltGr.
 * A new layout is a new table. A dead key is typed with a space behind it, which gives its own sign.
 */

import { KEYS } from "./keys.js";

/** @typedef {{code: string, keysym: number, shift: boolean, altgr: boolean}} Stroke one key with its modifiers */
/** @typedef {{name: string, keys: Readonly<Record<string, readonly (string | null)[]>>, dead: ReadonlySet<string>}} Layout */

/** The key of each sign of `signs`, from left to right. @param {string} codes @param {string} signs @param {string} shifted */
function row(codes, signs, shifted) {
  const plain = [...signs];
  const upper = [...shifted];
  /** @type {Record<string, readonly (string | null)[]>} */
  const keys = {};
  codes.split(" ").forEach((code, place) => {
    keys[code] = [plain[place] ?? null, upper[place] ?? null];
  });
  return keys;
}

const DIGITS = "Backquote Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal";
const UPPER = "KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight";
const HOME = "KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backslash";
const LOWER = "KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash";
const SPACE = row("Space", " ", " ");

const US = {
  ...row(DIGITS, "`1234567890-=", "~!@#$%^&*()_+"),
  ...row(UPPER, "qwertyuiop[]", "QWERTYUIOP{}"),
  ...row(HOME, "asdfghjkl;'\\", 'ASDFGHJKL:"|'),
  ...row(LOWER, "zxcvbnm,./", "ZXCVBNM<>?"),
  ...SPACE,
};

const DE = {
  ...row(DIGITS, "^1234567890ß´", '°!"§$%&/()=?`'),
  ...row(UPPER, "qwertzuiopü+", "QWERTZUIOPÜ*"),
  ...row(HOME, "asdfghjklöä#", "ASDFGHJKLÖÄ'"),
  ...row(`IntlBackslash ${LOWER}`, "<yxcvbnm,.-", ">YXCVBNM;:_"),
  ...SPACE,
};
const DE_ALTGR = {
  Digit2: "²", Digit3: "³", Digit7: "{", Digit8: "[", Digit9: "]", Digit0: "}", Minus: "\\",
  KeyQ: "@", KeyE: "€", BracketRight: "~", IntlBackslash: "|", KeyM: "µ",
};

/** @param {Record<string, readonly (string | null)[]>} keys @param {Record<string, string>} signs */
function withAltGr(keys, signs) {
  const more = Object.entries(signs).map(([code, sign]) => [code, [keys[code]?.[0] ?? null, keys[code]?.[1] ?? null, sign]]);
  return { ...keys, ...Object.fromEntries(more) };
}

/** @type {Readonly<Record<string, Layout>>} */
export const LAYOUTS = {
  us: { name: "English (US)", keys: US, dead: new Set() },
  de: { name: "German", keys: withAltGr(DE, DE_ALTGR), dead: new Set(["^", "´", "`"]) },
  "de-nodeadkeys": { name: "German, no dead keys", keys: withAltGr(DE, DE_ALTGR), dead: new Set() },
};

/** @type {Readonly<Record<string, keyof typeof KEYS>>} */
const CONTROLS = { "\n": "Enter", "\t": "Tab" };

/** @type {WeakMap<Layout, Map<string, Stroke[]>>} */
const MADE = new WeakMap();

/** Every sign of a layout with its strokes. @param {Layout} layout */
function signsOf(layout) {
  const found = MADE.get(layout);
  if (found) return found;
  /** @type {Map<string, Stroke[]>} */
  const signs = new Map();
  const space = { code: "Space", keysym: 0x20, shift: false, altgr: false };
  for (const level of [0, 1, 2]) {
    for (const [code, given] of Object.entries(layout.keys)) {
      const sign = given[level];
      if (!sign || signs.has(sign)) continue; // the fewest modifiers win
      const stroke = { code, keysym: keysymOf(sign), shift: level === 1, altgr: level === 2 };
      signs.set(sign, layout.dead.has(sign) ? [stroke, space] : [stroke]);
    }
  }
  for (const [sign, name] of Object.entries(CONTROLS)) {
    const { code, keysym } = /** @type {import("./keys.js").Key} */ (KEYS[name]);
    signs.set(sign, [{ code, keysym, shift: false, altgr: false }]);
  }
  MADE.set(layout, signs);
  return signs;
}

/** X11 keysymdef.h: Latin-1 stands for itself, the rest of Unicode has an offset. @param {string} sign */
function keysymOf(sign) {
  const point = sign.codePointAt(0) ?? 0;
  return point < 0x100 ? point : 0x1000000 + point;
}

/**
 * The strokes that type one sign; null where the layout has no key for it.
 * @param {Layout} layout
 * @param {string} sign
 */
export function strokesOf(layout, sign) {
  return signsOf(layout).get(sign) ?? null;
}

/** The signs of a text that the layout lacks, each once, in their order. @param {Layout} layout @param {string} text */
export function lacking(layout, text) {
  return [...new Set(text)].filter((sign) => !strokesOf(layout, sign));
}

/** A text as keys see it: one kind of line end. @param {string} text */
export function keyed(text) {
  return text.replace(/\r\n?/g, "\n");
}
