// The two pages as tabs, and the theme's button.

import { byId, element } from "./dom.js";

const TABS = ["explore", "run"];

/** `open(tab)` is called when a person chooses a tab, with the mouse or the arrow keys. */
export function startTabs(open) {
  for (const [place, tab] of TABS.entries()) {
    const button = byId(`tab-${tab}`);
    button.onclick = () => open(tab);
    button.onkeydown = (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const next = TABS[(place + 1) % TABS.length];
      open(next);
      byId(`tab-${next}`).focus();
    };
  }
  nameTheme();
  byId("theme").onclick = switchTheme;
}

export function showTab(shown) {
  for (const tab of TABS) {
    byId(tab).hidden = tab !== shown;
    byId(`tab-${tab}`).setAttribute("aria-selected", String(tab === shown));
    byId(`tab-${tab}`).tabIndex = tab === shown ? 0 : -1;
  }
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("r4t-theme", theme);
  } catch {
    // Storage may be blocked; the choice holds until the page is closed.
  }
  nameTheme();
}

function nameTheme() {
  const other = isDark() ? "Light" : "Dark";
  byId("theme").replaceChildren(other, element("span", { class: "wide" }, " theme"));
  byId("theme").setAttribute("aria-label", `${other} theme`);
}
