// The page: what is in the address is shown, what a person changes goes into the address.

import * as api from "./api.js";
import { adjustments, read, write } from "./address.js";
import { comparison } from "./compare.js";
import { Controls } from "./controls.js";
import { copyButton } from "./copy.js";
import { byId, element, short } from "./dom.js";
import { PlaneMap } from "./map.js";
import { showRun } from "./run.js";
import { column } from "./sets.js";
import { startTabs, showTab } from "./tabs.js";

let about, state, controls, map, asking;
const entries = new Map(); // method -> {answer} or {error}; {busy} while a new answer is under way

async function start() {
  startTabs((tab) => change({ tab }, true));
  try {
    about = await api.methods();
  } catch (error) {
    showTab(new URLSearchParams(location.search).get("tab") === "run" ? "run" : "explore");
    notice(error, start);
    return;
  }
  notice(null);
  const { items, name } = about.catalog;
  byId("catalog").textContent = `${items.toLocaleString("en")} items · ${name}`;
  controls = new Controls(about, change);
  addEventListener("popstate", arrive);
  arrive();
}

/** Shows what the address stands for, and says where that is not all that it asks for. */
function arrive() {
  const said = adjustments(location.search, about);
  adjusted(said.length ? `This page cannot show all that the link asks for: ${said.join("; ")}.` : "");
  follow(read(location.search, about));
}

/** A new state from a person: into the address, then onto the page. */
function change(part, lasting) {
  if (!about) return showTab(part.tab);
  adjusted("");
  const next = { ...state, ...part };
  const address = write(next, about);
  // Sliders would fill the history with values nobody wants to go back to.
  if (lasting && address !== write(state, about)) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
  follow(next, part.query !== undefined);
}

/** Shows a state; asks the server only for what changed, or for all of it when `again`. */
function follow(next, again = false) {
  const before = state;
  state = next;
  controls.show(state);
  showTab(state.tab);
  if (state.tab === "run") {
    document.title = "Run · R4T Explorer";
    showRun(byId("run"));
    return;
  }
  document.title = state.query ? `${state.query} · R4T Explorer` : "R4T Explorer";
  const same = before && ["query", "k", "spread", "seed", "methods", "filters"].every(
    (name) => JSON.stringify(before[name]) === JSON.stringify(state[name]));
  if (!same || again || !entries.size) search();
}

async function search() {
  asking?.abort();
  wrong(null);
  notice(null);
  byId("results").hidden = byId("intro").hidden = true;
  if (!state.query) {
    entries.clear();
    byId("intro").hidden = false;
    return;
  }
  asking = new AbortController();
  const { signal } = asking;
  for (const name of [...entries.keys()]) if (!state.methods.includes(name)) entries.delete(name);
  for (const name of state.methods) entries.set(name, { answer: entries.get(name)?.answer, busy: true });
  draw();
  await Promise.all(state.methods.map(async (name) => {
    const entry = await api.retrieve(state, name, signal).then((answer) => ({ answer }), (error) => ({ error }));
    if (signal.aborted) return;
    entries.set(name, entry);
    draw();
  }));
  if (!signal.aborted) conclude();
}

/** Says in one sentence what came back; an error that every method had is said once. */
function conclude() {
  const all = [...entries.values()];
  const failed = all.filter((entry) => entry.error);
  if (failed.length === all.length) {
    const { error } = failed[0];
    byId("results").hidden = true;
    entries.clear();
    if (error.field && /^quer/.test(error.field)) wrong(error.message);
    else notice(error, search);
    return;
  }
  const times = chosen().filter(([, entry]) => entry.answer)
    .map(([method, entry]) => `${method.title}: ${entry.answer.sets[0].items.length} items in ${short(entry.answer.milliseconds.total)} milliseconds`);
  const lost = failed.length ? ` ${failed.length} of ${all.length} methods failed.` : "";
  byId("status").textContent = `Sets for ${state.query}. ${times.join(". ")}.${lost}`;
}

function draw() {
  const answered = chosen().filter(([, entry]) => entry.answer).map(([method, entry]) => [method, entry.answer]);
  byId("results").hidden = false;
  byId("results").classList.toggle("waiting", answered.length === 0);
  map = new PlaneMap(answered, { point: (id) => point(id), pick });
  byId("map").replaceChildren(map.shown);
  byId("compare").replaceChildren(comparison(answered), share());
  const focus = document.activeElement?.closest?.("#sets button.item");
  const where = focus && [focus.closest("article").dataset.method, focus.dataset.item];
  byId("sets").replaceChildren(...chosen().map(([method, entry]) =>
    column(method, entry, state, { others: elsewhere(method, answered), point, retry: search })));
  if (where) pick(where[1], where[0]);
}

function share() {
  return element("p", { class: "share" }, copyButton("Copy link", () => location.href));
}

function chosen() {
  return about.methods.filter((method) => entries.has(method.name)).map((method) => [method, entries.get(method.name)]);
}

/** Item id -> the other methods that found it too. */
function elsewhere(own, answered) {
  const found = new Map();
  for (const [method, answer] of answered) {
    if (method.name === own.name) continue;
    for (const item of answer.sets[0].items) found.set(item.item_id, [...(found.get(item.item_id) ?? []), method]);
  }
  return found;
}

function point(id) {
  map.highlight(id);
  for (const card of document.querySelectorAll("#sets button.item")) card.classList.toggle("on", card.dataset.item === id);
}

function pick(id, method) {
  const cards = [...document.querySelectorAll(`#sets article[data-method="${CSS.escape(method)}"] button.item`)];
  const card = cards.find((button) => button.dataset.item === id);
  if (!card) return;
  for (const button of cards) button.tabIndex = button === card ? 0 : -1;
  card.focus();
}

/** A message for the whole page, with the way out as a button. */
function notice(error, again) {
  const box = byId("notice");
  box.hidden = !error;
  box.replaceChildren();
  if (!error) return;
  box.className = `notice ${error.kind}`;
  box.append(element("p", {}, error.message));
  if (error.kind === "key") box.append(keyForm(again));
  else box.append(element("button", { type: "button", class: "primary", click: again }, "Try again"));
}

function keyForm(again) {
  const input = element("input", { id: "key", type: "password", autocomplete: "off", required: true });
  return element("form", {
    submit: (event) => {
      event.preventDefault();
      api.keepKey(input.value);
      again();
    },
  }, element("label", { for: "key" }, "Key"), input, element("button", { type: "submit", class: "primary" }, "Use it"));
}

/** A message about the link that led here, until something is changed. */
function adjusted(message) {
  byId("adjusted").hidden = !message;
  byId("adjusted").textContent = message;
}

/** A message about the query, beside the query. */
function wrong(message) {
  byId("query-error").hidden = !message;
  byId("query-error").textContent = message ?? "";
  byId("query").toggleAttribute("aria-invalid", Boolean(message));
  if (message) byId("query").setAttribute("aria-invalid", "true");
  if (message) byId("status").textContent = message;
}

start();
