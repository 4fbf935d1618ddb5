// @ts-check
/**
 * What xterm may do for the guest's bytes: draw, and nothing else. The node filters before us; this holds without it.
 * No title, no link, no clipboard, no report of mouse or focus, no answer: answers are ours, when the node says who asked.
 */

const MODES = new Set([1, 7, 25, 47, 1047, 1048, 1049]); // of CSI ? Pm h and l
const CSI = [
  { final: "c" }, { prefix: ">", final: "c" }, { prefix: "=", final: "c" }, // device attributes
  { final: "n" }, { prefix: "?", final: "n" }, // status, cursor position
  { prefix: ">", final: "q" }, // version
  { intermediates: "$", final: "p" }, { prefix: "?", intermediates: "$", final: "p" }, // is a mode set
  { final: "t" }, // the window
  { final: "x" }, // terminal parameters
];
const MAX_OSC = 128; // no number above is xterm's own except those named
const MORE_OSC = [133, 633, 777, 1337];

/** @param {any} terminal an xterm Terminal */
export function guard(terminal) {
  const parser = terminal.parser;
  const swallow = () => true;
  for (const id of CSI) parser.registerCsiHandler(id, swallow);
  for (const final of ["h", "l"]) {
    parser.registerCsiHandler({ prefix: "?", final }, (/** @type {number[]} */ modes) => !modes.every((mode) => MODES.has(mode)));
  }
  for (let number = 0; number <= MAX_OSC; number++) parser.registerOscHandler(number, swallow);
  for (const number of MORE_OSC) parser.registerOscHandler(number, swallow);
  parser.registerDcsHandler({ intermediates: "$", final: "q" }, swallow); // what is set
  parser.registerDcsHandler({ final: "q" }, swallow); // sixel
  parser.registerDcsHandler({ intermediates: "+", final: "q" }, swallow); // termcap
}
