// The plane of the catalogue: the query, the rows that were generated, and the items they found.

import { drawn, element } from "./dom.js";
import { mark, shape, STAR } from "./marks.js";

const WIDTH = 420;
const HEIGHT = 340;
const MARGIN = 26;

/** answers: [[method, answer]]. point(id): called when an item is pointed at; pick(id, method): when it is clicked. */
export class PlaneMap {
  constructor(answers, { point, pick }) {
    this.answers = answers.filter(([, answer]) => answer.sets[0].map);
    if (!this.answers.length) {
      this.shown = element("p", { class: "note" }, "No map of this answer.");
      return;
    }
    this.place = scale(this.answers);
    this.label = drawn("text", { class: "halo", "aria-hidden": "true" });
    this.rows = drawn("g", { class: "rows" });
    this.links = drawn("g", { class: "links" });
    const picture = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": this.#described() },
      this.#background(), this.#everyRow(), this.links, this.rows, this.#items(point, pick), this.#query(), this.label);
    this.shown = element("div", { class: "map" }, picture, legend(this.answers));
  }

  /** Shows what belongs to an item: its points, the row that found it, its name. null: nothing is pointed at. */
  highlight(id) {
    if (!this.place) return;
    this.shown.classList.toggle("pointing", id !== null);
    this.links.replaceChildren();
    this.rows.replaceChildren();
    this.label.textContent = "";
    for (const dot of this.shown.querySelectorAll("[data-item]")) dot.classList.toggle("on", dot.dataset.item === id);
    if (id === null) return;
    for (const [method, answer] of this.answers) this.#found(id, method, answer.sets[0]);
  }

  #found(id, method, set) {
    const number = set.items.findIndex((item) => item.item_id === id);
    if (number < 0) return;
    const item = set.items[number];
    const [x, y] = this.place(set.map.items[number]);
    const row = set.map.rows?.[item.row];
    const [fromX, fromY] = this.place(set.map.query);
    const [rowX, rowY] = row ? this.place(row) : [fromX, fromY];
    this.links.append(drawn("path", { class: `link m-${method.name}`, d: `M${fromX} ${fromY}L${rowX} ${rowY}L${x} ${y}` }));
    if (row && Math.hypot(rowX - fromX, rowY - fromY) > 2) {
      this.rows.append(drawn("path", { class: `row m-${method.name}`, d: cross(rowX, rowY) }));
    }
    this.label.textContent = item.name || item.item_id;
    this.label.setAttribute("x", Math.min(Math.max(x, 70), WIDTH - 70));
    this.label.setAttribute("y", y < 40 ? y + 22 : y - 11);
  }

  #background() {
    const dots = (this.answers[0][1].sets[0].map.background ?? []).map((at) => {
      const [x, y] = this.place(at);
      return `M${x} ${y}h.01`;
    });
    return drawn("path", { class: "background", d: dots.join("") });
  }

  #everyRow() {
    return drawn("g", { class: "every" }, this.answers.flatMap(([method, answer]) =>
      (answer.sets[0].map.rows ?? []).map((row) => drawn("path", { class: `row m-${method.name}`, d: cross(...this.place(row)) }))));
  }

  #items(point, pick) {
    return drawn("g", { class: "dots" }, this.answers.flatMap(([method, answer]) => {
      const { items, map } = answer.sets[0];
      return items.map((item, number) => {
        const [x, y] = this.place(map.items[number]);
        return drawn("path", {
          class: `dot m-${method.name}`, d: shape(method.name), transform: `translate(${x} ${y})`, "data-item": item.item_id,
          mouseenter: () => point(item.item_id), mouseleave: () => point(null), click: () => pick(item.item_id, method.name),
        });
      });
    }));
  }

  #query() {
    const [x, y] = this.place(this.answers[0][1].sets[0].map.query);
    return drawn("path", { class: "query", d: STAR, transform: `translate(${x} ${y})` });
  }

  #described() {
    const counts = this.answers.map(([method, answer]) => `${answer.sets[0].items.length} items of ${method.title}`);
    const rows = this.answers.reduce((sum, [, answer]) => sum + (answer.sets[0].map.rows?.length ?? 0), 0);
    return `The query, ${rows} rows and ${counts.join(", ")} on the plane of the catalogue's largest variance. The lists hold the same items.`;
  }
}

/** Both axes at the same scale, around everything that was found; y points up. */
function scale(answers) {
  const points = answers.flatMap(([, { sets: [{ map }] }]) => [map.query, ...(map.rows ?? []), ...map.items]);
  const [xs, ys] = [points.map((at) => at[0]), points.map((at) => at[1])];
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const room = Math.min((WIDTH - 2 * MARGIN) / Math.max(right - left, 1e-6), (HEIGHT - 2 * MARGIN) / Math.max(high - low, 1e-6));
  return ([x, y]) => [
    round(WIDTH / 2 + (x - (left + right) / 2) * room),
    round(HEIGHT / 2 - (y - (low + high) / 2) * room),
  ];
}

function legend(answers) {
  const entry = (picture, text) => element("span", {}, picture, text);
  const star = drawn("svg", { class: "mark-shape", viewBox: "-8 -8 16 16", "aria-hidden": "true" }, drawn("path", { class: "query", d: STAR }));
  const dots = drawn("svg", { class: "mark-shape", viewBox: "-8 -8 16 16", "aria-hidden": "true" },
    drawn("path", { class: "background", d: "M-5 3h.01M0-4h.01M4 2h.01" }));
  const row = drawn("svg", { class: "mark-shape", viewBox: "-8 -8 16 16", "aria-hidden": "true" }, drawn("path", { class: "row", d: cross(0, 0) }));
  return element("p", { class: "legend", "aria-hidden": "true" }, entry(star, "query"),
    answers.map(([method]) => entry(mark(method.name), method.title)),
    answers.some(([, answer]) => answer.sets[0].map.rows?.length) ? entry(row, "row: where a method looked") : null, entry(dots, "catalogue"));
}

function cross(x, y) {
  return `M${x - 4.5} ${y - 4.5}l9 9m0-9l-9 9`;
}

function round(value) {
  return Math.round(value * 10) / 10;
}
