// Light and dark: follows the system until the button is pressed.
"use strict";

const page = document.documentElement;
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const themeListeners = [];

function isDark() {
  return page.dataset.theme ? page.dataset.theme === "dark" : systemIsDark.matches;
}

function announceTheme() {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
  themeListeners.forEach((listener) => listener(isDark()));
}

document.getElementById("theme").hidden = false;
document.getElementById("theme").addEventListener("click", () => {
  page.dataset.theme = isDark() ? "light" : "dark";
  announceTheme();
});
systemIsDark.addEventListener("change", announceTheme);
announceTheme();
