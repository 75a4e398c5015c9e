// All state of the page is in its address: a link shows the same page to someone else.

const BESIDE = ["no_fanout", "mmr", "r4t_folm"]; // the server's own default is shown beside them
const SLIDER_K = 50;
export const LIMITS = { spread: [0, 3], seed: [0, 99] };

/** The state that an address stands for. `about` is what the server says of itself. */
export function read(search, about) {
  const given = new URLSearchParams(search);
  const known = about.methods.map((method) => method.name);
  const asked = (given.get("m") ?? "").split(",").filter((name) => known.includes(name));
  const filters = {};
  for (const { column, values } of about.filters ?? []) {
    const wanted = given.getAll(`f.${column}`).filter((value) => values.includes(value));
    if (wanted.length) filters[column] = wanted;
  }
  return {
    tab: given.get("tab") === "run" ? "run" : "explore",
    query: (given.get("q") ?? "").slice(0, about.limits.characters),
    k: Math.round(number(given.get("k"), Math.min(10, mostItems(about)), 1, mostItems(about))),
    spread: number(given.get("spread"), 1, ...LIMITS.spread),
    seed: Math.round(number(given.get("seed"), 0, ...LIMITS.seed)),
    methods: asked.length ? asked : usual(about),
    filters,
  };
}

/** What an address asks for and this server cannot show, in words: `read` takes what is nearest to it. */
export function adjustments(search, about) {
  const given = new URLSearchParams(search);
  const state = read(search, about);
  const said = [];
  for (const [name, label] of [["k", "Items in a set"], ["spread", "Spread"], ["seed", "Seed"]]) {
    const text = given.get(name);
    if (text !== null && (text.trim() === "" || Number(text) !== state[name])) said.push(`${label} is ${state[name]}, not “${cut(text)}”`);
  }
  for (const name of (given.get("m") ?? "").split(",")) {
    if (name && !about.methods.some((method) => method.name === name)) said.push(`there is no method “${cut(name)}”`);
  }
  for (const [name, value] of given) {
    const column = name.startsWith("f.") ? name.slice(2) : null;
    if (column !== null && !state.filters[column]?.includes(value)) said.push(`nothing is filtered by ${cut(column)} “${cut(value)}”`);
  }
  if ((given.get("q") ?? "").length > state.query.length) said.push(`the query ends after ${state.query.length} characters`);
  return said;
}

/** The address of a state; what is as usual is left out. */
export function write(state, about) {
  const address = new URLSearchParams();
  if (state.tab === "run") address.set("tab", "run");
  if (state.query) address.set("q", state.query);
  if (state.k !== Math.min(10, mostItems(about))) address.set("k", state.k);
  if (state.spread !== 1) address.set("spread", state.spread);
  if (state.seed !== 0) address.set("seed", state.seed);
  if (state.methods.join() !== usual(about).join()) address.set("m", state.methods.join(","));
  for (const [column, values] of Object.entries(state.filters)) {
    for (const value of values) address.append(`f.${column}`, value);
  }
  const text = address.toString().replaceAll("%2C", ",");
  return text ? `?${text}` : location.pathname;
}

export function mostItems(about) {
  return Math.min(SLIDER_K, about.limits.k, about.catalog.items);
}

function usual(about) {
  const names = about.methods.map((method) => method.name);
  return [...BESIDE.filter((name) => names.includes(name)), about.default];
}

function number(text, otherwise, low, high) {
  const value = text === null || text.trim() === "" ? NaN : Number(text);
  return Number.isFinite(value) ? Math.min(Math.max(value, low), high) : otherwise;
}

function cut(text) {
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}
