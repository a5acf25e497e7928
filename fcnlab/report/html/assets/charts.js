// Charts: rendered by Vega without eval, with the colors of the theme, tooltips, and export.

const CHART_COLORS = {
  light: { ink: "#1b1f24", soft: "#57606a", line: "#e3e6ea", paper: "#ffffff" },
  dark: { ink: "#e6e9ed", soft: "#9aa4af", line: "#2b3138", paper: "#14171b" },
};
const views = [];

// Set the signals of all charts; the interpreter of expressions redraws them.
function paintCharts(dark) {
  for (const view of views) {
    Object.entries(CHART_COLORS[dark ? "dark" : "light"]).forEach(([name, color]) => view.signal(name, color));
    view.run();
  }
}

// Show a tooltip of Vega: an object of texts by their titles.
function showTooltip(handler, event, item, value) {
  const box = document.getElementById("tooltip");
  box.hidden = !value;
  if (!value) return;
  const list = document.createElement("dl");
  for (const [name, text] of Object.entries(value)) {
    list.append(Object.assign(document.createElement("dt"), { textContent: name }));
    list.append(Object.assign(document.createElement("dd"), { textContent: text }));
  }
  box.replaceChildren(list);
  const above = event.clientY + 18 + box.offsetHeight > innerHeight;
  box.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${above ? Math.max(8, event.clientY - box.offsetHeight - 12) : event.clientY + 18}px`;
}

async function exportChart(view, name, format) {
  const link = document.createElement("a");
  link.download = `${name}.${format}`;
  link.href = await view.toImageURL(format, format === "png" ? 2 : 1);
  link.click();
}

async function makeChart(plot) {
  const canvas = plot.querySelector(".canvas");
  canvas.style.minWidth = `${plot.dataset.width}px`;
  const spec = JSON.parse(plot.querySelector("script").textContent);
  if (canvas.clientWidth < 480) spec.config.legend.columns = 1;
  const options = { ast: true, actions: false, renderer: "svg", defaultStyle: false, tooltip: showTooltip };
  const { view } = await drawChart(canvas, spec, options);
  views.push(view);
  const tools = plot.parentElement.querySelector(".export");
  tools.hidden = false;
  tools.querySelectorAll("button").forEach((button) =>
    button.addEventListener("click", () => exportChart(view, plot.dataset.name, button.dataset.format)));
}

Promise.all([...document.querySelectorAll(".plot")].map(makeChart)).then(() => {
  paintCharts(isDark());
  themeListeners.push(paintCharts);
  page.dataset.charts = "ready";
});
addEventListener("scroll", () => { document.getElementById("tooltip").hidden = true; }, { passive: true });
