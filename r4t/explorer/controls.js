// The form: query, examples, methods, sliders and filters. It shows a state and reports what a person changes.

import { LIMITS, mostItems } from "./address.js";
import { byId, element, short, spoken } from "./dom.js";
import { mark } from "./marks.js";

const PAUSE = 140; // milliseconds without a move until a slider's new value is asked for

/** Builds the form for a server. `change(part, lasting)`: `lasting` changes deserve a step of the browser's history. */
export class Controls {
  constructor(about, change) {
    this.about = about;
    this.change = change;
    this.sliders = sliders(about).map((slider) => this.#slider(slider));
    byId("sliders").replaceChildren(...this.sliders.map((slider) => slider.shown));
    byId("query").maxLength = about.limits.characters;
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      change({ query: byId("query").value.trim() }, true);
    });
    this.#examples();
    if (matchMedia("(max-width: 700px)").matches) byId("settings").open = false;
  }

  show(state) {
    if (this.state?.query !== state.query) byId("query").value = state.query; // what is being typed stays
    this.state = state;
    for (const slider of this.sliders) slider.set(state[slider.name]);
    this.#methods();
    this.#filters();
  }

  #examples() {
    const examples = this.about.examples ?? [];
    byId("examples").hidden = examples.length === 0;
    byId("examples").replaceChildren(
      ...examples.slice(0, 6).map((text) =>
        element("button", { type: "button", class: "chip", click: () => this.#ask(text) }, text),
      ),
    );
  }

  #ask(text) {
    byId("query").value = text;
    this.change({ query: text }, true);
  }

  #methods() {
    const boxes = this.about.methods.map((method) => {
      const on = this.state.methods.includes(method.name);
      const box = element("input", {
        type: "checkbox", name: "method", value: method.name, checked: on, change: (event) => this.#toggle(event.target),
      });
      return element("label", { class: `pill m-${method.name}`, title: method.description }, box, mark(method.name), method.title);
    });
    refresh(byId("methods"), boxes);
  }

  #toggle(box) {
    const chosen = this.about.methods.map((method) => method.name).filter((name) =>
      name === box.value ? box.checked : this.state.methods.includes(name),
    );
    if (chosen.length) this.change({ methods: chosen }, true);
    else box.checked = true; // comparing nothing is never meant
  }

  #slider({ name, label, hint, min, max, step }) {
    const value = element("output", { for: name });
    let waiting = null;
    const input = element("input", {
      id: name, type: "range", min, max, step, "aria-describedby": hint ? `${name}-hint` : null,
      input: () => {
        value.textContent = shownNumber(name, input.valueAsNumber);
        clearTimeout(waiting);
        waiting = setTimeout(() => this.change({ [name]: input.valueAsNumber }, false), PAUSE);
      },
    });
    const next = name === "seed" ? this.#another(input, max) : null;
    const shown = element("div", { class: "slider" },
      element("label", { for: name }, label), value, input,
      hint ? element("p", { class: "note", id: `${name}-hint` }, hint) : null, next,
    );
    const set = (number) => {
      input.value = number;
      value.textContent = shownNumber(name, number);
    };
    return { name, shown, set };
  }

  #another(input, max) {
    const draw = () => this.change({ seed: (input.valueAsNumber + 1) % (max + 1) }, false);
    return element("button", { type: "button", class: "quiet", click: draw }, "Another set");
  }

  #filters() {
    const open = new Set([...byId("filters").querySelectorAll("details[open]")].map((fold) => fold.dataset.column));
    const folds = (this.about.filters ?? []).map(({ column, values }) => {
      const chosen = this.state.filters[column] ?? [];
      const boxes = [...values].sort(inOrder).map((value) =>
        element("label", {},
          element("input", {
            type: "checkbox", name: `f.${column}`, value, checked: chosen.includes(value),
            change: (event) => this.#filter(column, value, event.target.checked),
          }), value),
      );
      const count = chosen.length ? element("b", { class: "count" }, String(chosen.length), spoken(" chosen")) : null;
      return element("details", { class: "filter", "data-column": column, open: open.has(column) },
        element("summary", {}, column.replaceAll("_", " "), count),
        element("div", { class: "values", role: "group", "aria-label": column.replaceAll("_", " ") }, boxes),
      );
    });
    byId("filtered").hidden = folds.length === 0;
    refresh(byId("filters"), folds);
  }

  #filter(column, value, on) {
    const kept = (this.state.filters[column] ?? []).filter((other) => other !== value);
    const filters = { ...this.state.filters, [column]: on ? [...kept, value].sort() : kept };
    if (!filters[column].length) delete filters[column];
    this.change({ filters }, true);
  }
}

function sliders(about) {
  const moved = (control) =>
    about.methods.filter((method) => method.controls.includes(control)).map((method) => method.title).join(", ");
  const found = [{ name: "k", label: "Items in a set", hint: "", min: 1, max: mostItems(about), step: 1 }];
  if (moved("spread")) {
    const hint = `0 stays with the query, 1 is as trained, more is more varied. Moves ${moved("spread")}.`;
    found.push({ name: "spread", label: "Spread", hint, min: LIMITS.spread[0], max: LIMITS.spread[1], step: 0.05 });
  }
  if (moved("seed")) {
    const hint = `Another seed is another set. Moves ${moved("seed")}.`;
    found.push({ name: "seed", label: "Seed", hint, min: LIMITS.seed[0], max: LIMITS.seed[1], step: 1 });
  }
  return found;
}

function inOrder(one, other) {
  return one.localeCompare(other, "en", { numeric: true });
}

function shownNumber(name, value) {
  return name === "spread" ? short(value) : String(value);
}

/** New boxes in the place of the old; whoever worked with the keyboard stays where they were. */
function refresh(holder, children) {
  const { name, value } = document.activeElement ?? {};
  const inside = holder.contains(document.activeElement);
  holder.replaceChildren(...children);
  if (inside) [...holder.querySelectorAll("input")].find((box) => box.name === name && box.value === value)?.focus();
}
