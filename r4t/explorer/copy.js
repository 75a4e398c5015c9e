// Buttons that copy.

import { byId, element } from "./dom.js";

/** A button that copies what `text()` gives, and says so. */
export function copyButton(label, text) {
  const button = element("button", {
    type: "button", class: "quiet",
    click: async () => {
      const done = await copied(text());
      button.textContent = done ? "Copied" : "Copying is blocked";
      byId("status").textContent = button.textContent;
      setTimeout(() => { button.textContent = label; }, 1600);
    },
  }, label);
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedBySelection(text); // pages that are neither https nor of this machine have no clipboard
  }
}

function copiedBySelection(text) {
  const area = element("textarea", { class: "hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
