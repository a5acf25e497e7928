// Printing: everything unfolded, on white.

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((details) => { details.open = true; });
  paintCharts(false);
});
addEventListener("afterprint", () => {
  folded.forEach((details) => { details.open = false; });
  paintCharts(isDark());
});
