// Runs before the page is drawn, so that a chosen theme never flashes. Without a choice the system's scheme holds.
try {
  const chosen = localStorage.getItem("r4t-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be blocked; the system's scheme holds.
}
