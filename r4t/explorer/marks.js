// One shape for each method, so that nobody has to tell them apart by colour.

import { drawn } from "./dom.js";

const SHAPES = {
  no_fanout: "M-4.500-4.500h9v9h-9z",
  mmr: "M0-6L5.600 4.200h-11.200z",
  r4t_folm: "M0-6.300L6.300 0L0 6.300L-6.300 0z",
  random: "M-1.700-5.500h3.400v3.800h3.800v3.400h-3.800v3.800h-3.400v-3.800h-3.800v-3.400h3.800z",
};
const DISC = "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z";
export const STAR = "M0-8L2.200-2.600L7.800-2.400L3.400 1.200L4.900 6.700L0 3.600L-4.900 6.700L-3.400 1.200L-7.800-2.400L-2.200-2.600z";

export function shape(method) {
  return SHAPES[method] ?? DISC;
}

/** The shape as a small picture beside a name. */
export function mark(method) {
  return drawn("svg", { class: "mark-shape", viewBox: "-8 -8 16 16", "aria-hidden": "true" },
    drawn("path", { class: `m-${method}`, d: shape(method) }));
}
