// The second tab: the run that made the retriever, in the sections of its report.

import * as api from "./api.js";
import { element } from "./dom.js";
import { rebuilt } from "./markup.js";

let loaded = false;

/** Fills the tab once; a failure can be tried again. */
export async function showRun(holder) {
  if (loaded) return;
  holder.setAttribute("aria-busy", "true");
  holder.replaceChildren(element("p", { class: "empty", role: "status" }, "Reading the run …"));
  try {
    const page = await api.run();
    loaded = true;
    holder.replaceChildren(...shown(page));
  } catch (error) {
    holder.replaceChildren(element("div", { class: `notice ${error.kind}`, role: "alert" }, element("p", {}, error.message),
      element("button", { type: "button", class: "primary", click: () => showRun(holder) }, "Try again")));
  }
  holder.removeAttribute("aria-busy");
}

function shown(page) {
  const links = page.sections.map((section) => element("a", { href: `#run-${section.id}` }, section.title));
  return [
    element("header", { class: "run-head" }, element("p", { class: "run" }, "Run ", element("b", {}, page.name)), element("h1", {}, page.title),
      element("p", { class: "lead" }, page.lead), rebuilt(page.summary)),
    element("nav", { "aria-label": "Sections of the run" }, links),
    ...page.sections.map((section) => element("section", { id: `run-${section.id}`, "aria-labelledby": `run-${section.id}-title` },
      element("h2", { id: `run-${section.id}-title` }, section.title), element("p", { class: "hint" }, section.hint), rebuilt(section.html))),
  ];
}
