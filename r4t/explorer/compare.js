// What the sets are like as sets: one row for each method, one bar for each term.

import { element, short } from "./dom.js";
import { mark } from "./marks.js";

const TERMS = [
  { key: "alignment", label: "Fit", meaning: "mean cosine of the items with the query; more is nearer", digits: 2 },
  { key: "diversity", label: "Diversity", meaning: "Vendi score over k: 1 where all items differ", digits: 2 },
  { key: "distinct", label: "Distinct", meaning: "share of different items in the set", digits: 2 },
  { key: "total", label: "ms", meaning: "time in the server: encoding, generating and searching; less is better", time: true },
];

/** answers: [[method, answer]] in the order of the columns. */
export function comparison(answers) {
  const values = answers.map(([method, answer]) => [method, { ...answer.sets[0].metrics, total: answer.milliseconds.total }]);
  const shown = TERMS.filter((term) => values.some(([, found]) => Number.isFinite(found[term.key])));
  const head = element("tr", {}, element("th", { scope: "col" }, "Method"),
    shown.map((term) => element("th", { scope: "col", title: term.meaning }, term.label)));
  const rows = values.map(([method, found]) => element("tr", {},
    element("th", { scope: "row" }, element("span", { class: "named" }, mark(method.name), method.title)),
    shown.map((term) => cell(term, found[term.key], values, method))));
  return element("table", { class: "compare" }, element("thead", {}, head), element("tbody", {}, rows));
}

function cell(term, value, values, method) {
  if (!Number.isFinite(value)) return element("td", {}, "–");
  const all = values.map(([, found]) => found[term.key]).filter(Number.isFinite);
  const full = term.time ? Math.max(...all) : Math.max(1, ...all);
  const best = all.length > 1 && value === (term.time ? Math.min(...all) : Math.max(...all));
  const bar = element("span", { class: "meter", "aria-hidden": "true" }, element("span", { class: term.time ? "" : `m-${method.name}` }));
  bar.firstChild.style.width = `${Math.round(Math.max(value / full, 0) * 100)}%`;
  return element("td", { class: best ? "best" : null }, short(value), bar);
}
