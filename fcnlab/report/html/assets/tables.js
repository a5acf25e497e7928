// Tables: sorting by the values in data-sort, filtering of rows, frozen first columns, a hint of hidden columns.

// Return the sort key of a cell: a number, a text, or null for a missing value, which is sorted last.
function sortKey(cell) {
  const text = cell.dataset.sort;
  if (text === "") return null;
  const number = Number(text);
  return Number.isNaN(number) ? text : number;
}

// Numbers come before texts.
function compareKeys(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a.localeCompare(b, undefined, { numeric: true });
}

function sortRows(table, column, order) {
  const body = table.tBodies[0];
  const sign = order === "ascending" ? 1 : -1;
  const keyed = [...body.rows].map((row) => [sortKey(row.cells[column]), row]);
  keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compareKeys(a, b)));
  body.append(...keyed.map(([, row]) => row));
  for (const row of body.rows) row.classList.remove("rule");
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const [first, second] = head.classList.contains("number") ? ["descending", "ascending"] : ["ascending", "descending"];
      const order = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      sortRows(table, column, order);
    });
  });
}

function makeFilter(input) {
  const body = document.getElementById(input.dataset.table).querySelector("table").tBodies[0];
  const output = input.closest(".filter").querySelector("output");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    output.textContent = `${count} of ${body.rows.length}`;
  });
}

// Freeze the first columns, as many as fit into half of the visible width, and at least the first one.
function freezeColumns(table) {
  const widths = [...table.tHead.rows[0].cells].slice(0, Number(table.dataset.frozen)).map((cell) => cell.offsetWidth);
  const room = table.parentElement.clientWidth / 2;
  let left = 0;
  const places = widths.map((width, index) => {
    const place = index === 0 || left + width <= room ? left : null;
    left += width;
    return place;
  });
  const last = places.lastIndexOf(places.findLast((place) => place !== null));
  for (const row of table.rows) {
    places.forEach((place, index) => {
      const cell = row.cells[index];
      cell.classList.toggle("frozen", place !== null);
      cell.classList.toggle("edge", index === last);
      cell.style.left = place === null ? "" : `${place}px`;
    });
  }
}

// Show that a table has columns to the right of the visible ones.
function showMore(box) {
  const hint = document.querySelector(`input[data-table="${CSS.escape(box.id)}"]`)?.closest(".filter").querySelector(".more");
  if (hint) hint.hidden = box.scrollLeft + box.clientWidth >= box.scrollWidth - 1;
}

const tables = [...document.querySelectorAll("table[data-frozen]")];
tables.forEach(makeSortable);
document.querySelectorAll("input[data-table]").forEach(makeFilter);
const boxes = [...document.querySelectorAll(".scroll")];
boxes.forEach((box) => box.addEventListener("scroll", () => showMore(box), { passive: true }));
const freezeAll = () => {
  tables.forEach(freezeColumns);
  boxes.forEach(showMore);
};
addEventListener("resize", freezeAll);
document.querySelectorAll("details").forEach((details) => details.addEventListener("toggle", freezeAll));
freezeAll();
