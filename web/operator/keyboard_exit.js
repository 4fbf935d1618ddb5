// @ts-check
/**
 * The way out of a console for those who use no mouse: Ctrl, Alt and Shift together, and no other key. Every other key,
 * Tab and Escape too, is the guest's.
 */

const MODIFIERS = new Set(["Control", "Alt", "Shift", "AltGraph", "Meta"]);

/** @param {HTMLElement} stage where the keys go to the guest @param {() => void} leave */
export function watchExit(stage, leave) {
  let armed = false;
  stage.addEventListener(
    "keydown",
    (event) => {
      const all = [event.ctrlKey || event.key === "Control", event.altKey || event.key === "Alt", event.shiftKey || event.key === "Shift"];
      armed = MODIFIERS.has(event.key) && all.every(Boolean);
    },
    { capture: true },
  );
  stage.addEventListener(
    "keyup",
    (event) => {
      if (!armed || !MODIFIERS.has(event.key)) return;
      armed = false;
      leave();
    },
    { capture: true },
  );
}
