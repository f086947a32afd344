// Draw each chart from the JSON beside its place.
for (const script of document.querySelectorAll("script[data-chart]"))
  Bokeh.embed.embed_item(JSON.parse(script.textContent), script.dataset.chart);

// The button switches between light and dark. Charts read their colours when they are drawn, so they are drawn again.
const root = document.documentElement, button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
function recolour() {
  button.textContent = isDark() ? "Light" : "Dark";
  for (const view of globalThis.Bokeh?.index.all_views() ?? []) view.request_repaint?.();
}
button.hidden = false;
button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; recolour(); });
system.addEventListener("change", recolour);
recolour();
