// Sorting, filtering and tooltips of a report's page. The page is complete without scripts.
"use strict";

// Sort key of a text: its first number, 0 for "baseline", null (sorted last) for a missing value.
function value(text) {
  const trimmed = text.trim();
  if (trimmed === "baseline") return 0;
  const found = trimmed.replace(/,(?=\d{3})/g, "").match(/^[+-]?\d+(\.\d+)?/);
  if (found) return Number(found[0]);
  return trimmed === "" || trimmed === "–" ? null : trimmed.toLowerCase();
}

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sortable(table) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      const way = order === "ascending" ? 1 : -1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const keyed = [...body.rows].map((row) => [value(row.cells[column].textContent), row]);
      keyed.sort(([a], [b]) => (a === null || b === null ? compare(a, b) : way * compare(a, b)));
      body.append(...keyed.map(([, row]) => row));
      for (const row of body.rows) row.classList.remove("rule");
    });
  });
}

function filterable(input) {
  const table = document.getElementById(input.dataset.table).querySelector("table");
  const shown = document.getElementById(`${input.id}-shown`);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${table.tBodies[0].rows.length}`;
  });
}

// Show the titles of an SVG at once: browsers show them after a delay.
function tips(box) {
  document.querySelectorAll(".plot .tip").forEach((part) => {
    const title = part.querySelector("title");
    part.setAttribute("role", "img");
    part.setAttribute("aria-label", title.textContent);
    title.remove();
  });
  document.addEventListener("pointermove", (event) => {
    const part = event.target.closest ? event.target.closest(".plot .tip") : null;
    box.hidden = !part;
    if (!part) return;
    box.textContent = part.getAttribute("aria-label");
    box.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8))}px`;
    box.style.top = `${event.clientY + 18 + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 10 : event.clientY + 18}px`;
  });
}

document.querySelectorAll("table").forEach(sortable);
document.querySelectorAll("input[data-table]").forEach(filterable);
tips(document.getElementById("tooltip"));
