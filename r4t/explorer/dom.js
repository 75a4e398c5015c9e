// Elements from data. Strings become text nodes, never markup, so a name may hold anything.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. A property that is a function listens to that event; null and false leave the attribute out. */
export function element(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function drawn(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

/** Text that only screen readers say. */
export function spoken(text) {
  return element("span", { class: "hidden" }, text);
}

export function byId(id) {
  return document.getElementById(id);
}

/** Two or three digits: .42, 12, 1.2. */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return value.toFixed(2);
}

function filled(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== false && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}
