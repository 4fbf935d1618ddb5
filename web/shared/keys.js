// @ts-check
/**
 * Keys by what is printed on them: `code` is the place on the keyboard (KeyboardEvent.code, which noVNC makes a scancode of),
 * `keysym` for a server that knows no scancodes (X11 keysymdef.h), `linux` the Linux input key code that keys.send takes.
 */

/** @typedef {{code: string, keysym: number, linux: number}} Key */

/** @type {Readonly<Record<string, Key>>} */
export const KEYS = {
  Ctrl: { code: "ControlLeft", keysym: 0xffe3, linux: 29 },
  Alt: { code: "AltLeft", keysym: 0xffe9, linux: 56 },
  Shift: { code: "ShiftLeft", keysym: 0xffe1, linux: 42 },
  AltGr: { code: "AltRight", keysym: 0xfe03, linux: 100 },
  Win: { code: "MetaLeft", keysym: 0xffeb, linux: 125 },
  Del: { code: "Delete", keysym: 0xffff, linux: 111 },
  Esc: { code: "Escape", keysym: 0xff1b, linux: 1 },
  Tab: { code: "Tab", keysym: 0xff09, linux: 15 },
  Enter: { code: "Enter", keysym: 0xff0d, linux: 28 },
  Space: { code: "Space", keysym: 0x20, linux: 57 },
  Backspace: { code: "Backspace", keysym: 0xff08, linux: 14 },
  Print: { code: "EvaPrint", keysym: 0xff61, linux: 99 },
  SysRq: { code: "PrintScreen", keysym: 0xff15, linux: 99 },
  U: { code: "KeyU", keysym: 0x75, linux: 22 },
  R: { code: "KeyR", keysym: 0x72, linux: 19 },
  L: { code: "KeyL", keysym: 0x6c, linux: 38 },
  B: { code: "KeyB", keysym: 0x62, linux: 48 },
  S: { code: "KeyS", keysym: 0x73, linux: 31 },
  ...functionKeys(),
};

/** F1 to F12: 59 to 68, then 87 and 88. */
function functionKeys() {
  /** @type {Record<string, Key>} */
  const keys = {};
  for (let number = 1; number <= 12; number++) {
    keys[`F${number}`] = { code: `F${number}`, keysym: 0xffbd + number, linux: number <= 10 ? 58 + number : 76 + number };
  }
  return keys;
}

/** The keys of a chord, in the order in which they go down. @param {string} names as in "Ctrl+Alt+Del" */
export function chord(names) {
  return names.split("+").map((name) => {
    const key = KEYS[name];
    if (!key) throw new Error(`no key ${name}`);
    return key;
  });
}
