// One column for each method: its set as a list, and what makes each item different.

import { curl } from "./api.js";
import { copyButton } from "./copy.js";
import { element, short, spoken } from "./dom.js";
import { mark } from "./marks.js";

/** method: as /v1/methods describes it. entry: {answer} or {error} or {} while it is asked. others: item id ->
 * the other methods that found it. point(id, row): called when an item is pointed at, with null when it no longer is. */
export function column(method, entry, state, { others, point, retry }) {
  const title = `set-${method.name}`;
  const head = element("header", {},
    element("h2", { id: title }, mark(method.name), method.title),
    entry.answer ? element("p", { class: "time", title: timesInWords(entry.answer.milliseconds) },
      `${short(entry.answer.milliseconds.total)} ms`, spoken(` in total: ${timesInWords(entry.answer.milliseconds)}`)) : null,
  );
  const made = element("article", { class: `column top-${method.name}`, "aria-labelledby": title, "data-method": method.name,
    "aria-busy": entry.busy ? "true" : null }, head);
  if (entry.error) made.append(failure(entry.error, retry));
  else if (!entry.answer) made.append(...skeleton(state.k));
  else made.append(list(method, entry.answer, others, point), element("footer", {}, copyButton("Copy as curl", () => curl(state, method.name))));
  return made;
}

function list(method, answer, others, point) {
  const { items, map, subqueries } = answer.sets[0];
  if (!items.length) return element("p", { class: "none" }, "No item passes these filters.");
  const foundBy = (item) => (subqueries?.[item.row] ? `“${subqueries[item.row]}”` : map?.rows.length ? `row ${item.row + 1}` : null);
  const made = element("ol", { class: "items", keydown: arrows },
    items.map((item, place) => element("li", {}, card(item, place, foundBy(item), others.get(item.item_id) ?? [], point))));
  made.querySelector("button").tabIndex = 0;
  return made;
}

function card(item, place, foundBy, elsewhere, point) {
  const details = element("dl", { hidden: true, id: `details-${crypto.getRandomValues(new Uint32Array(1))[0]}` },
    facts(item, elsewhere).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  const novelty = place === 0 ? element("span", { class: "first" }, "first")
    : measure("adds", item.novelty, "novelty");
  const button = element("button", {
    type: "button", class: "item", tabindex: "-1", "aria-expanded": "false", "aria-controls": details.id, "data-item": item.item_id,
    click: () => {
      details.hidden = !details.hidden;
      button.setAttribute("aria-expanded", String(!details.hidden));
    },
    mouseenter: () => point(item.item_id, item.row), mouseleave: () => point(null),
    focus: () => point(item.item_id, item.row), blur: () => point(null),
  },
  element("span", { class: "place", "aria-hidden": "true" }, String(place + 1)),
  element("span", { class: "name" }, item.name || item.item_id),
  element("span", { class: "why" }, novelty, measure("fits", item.alignment, "alignment with the query"),
    foundBy ? element("span", { class: "by", title: "what found it" }, foundBy) : null,
    elsewhere.length ? element("span", { class: "also" }, "also in ", elsewhere.flatMap((other) => [mark(other.name), spoken(`${other.title} `)])) : null));
  return [button, details];
}

function measure(word, value, meaning) {
  const bar = element("span", { class: "meter", "aria-hidden": "true" }, element("span", {}));
  bar.firstChild.style.width = `${Math.round(Math.min(Math.max(value, 0), 1) * 100)}%`;
  return element("span", { class: `measure ${word}`, title: meaning }, `${word} `, bar, element("b", {}, short(value)));
}

function facts(item, elsewhere) {
  const own = Object.entries(item.fields ?? {}).map(([name, value]) => [name.replaceAll("_", " "), String(value)]);
  return [
    ["item", item.item_id],
    ["score", short(item.score)],
    ...own,
    ...(elsewhere.length ? [["also in", elsewhere.map((other) => other.title).join(", ")]] : []),
  ];
}

function failure(error, retry) {
  return element("div", { class: "failed" }, element("p", {}, error.message),
    element("button", { type: "button", class: "quiet", click: retry }, "Try again"));
}

function skeleton(k) {
  return [spoken("Loading"), element("div", { class: "skeleton", "aria-hidden": "true" },
    Array.from({ length: Math.min(k, 8) }, () => element("span")))];
}

/** Up and down within the list, left and right between lists, as in a grid: one tab stop for each list. */
function arrows(event) {
  const lists = [...document.querySelectorAll("ol.items")];
  const rows = [...event.currentTarget.querySelectorAll("button.item")];
  const at = rows.indexOf(event.target.closest("button.item"));
  const beside = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  let next = { ArrowDown: rows[at + 1], ArrowUp: rows[at - 1], Home: rows[0], End: rows.at(-1) }[event.key];
  if (beside) {
    const there = lists[lists.indexOf(event.currentTarget) + beside]?.querySelectorAll("button.item") ?? [];
    next = there[Math.min(at, there.length - 1)];
  }
  if (!next) return;
  event.preventDefault();
  for (const button of next.closest("ol").querySelectorAll("button.item")) button.tabIndex = button === next ? 0 : -1;
  next.focus();
}

function timesInWords(times) {
  const parts = ["encode", "generate", "search"].filter((name) => times[name] > 0);
  return parts.map((name) => `${name} ${short(times[name])} ms`).join(", ");
}
