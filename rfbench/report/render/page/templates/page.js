"use strict";
document.documentElement.classList.remove("unscripted");
const read = (parent, what) => JSON.parse(parent.querySelector(what).textContent);

// Tables: a click, or Enter on a heading, sorts; a second turns the order. Empty values stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, index) => heading.querySelector("button").addEventListener("click", () => {
    const numeric = heading.classList.contains("number");
    const now = heading.getAttribute("aria-sort");
    const next = now ? (now === "ascending" ? "descending" : "ascending") : (numeric ? "descending" : "ascending");
    const sign = next === "ascending" ? 1 : -1;
    const value = (row) => {
      const cell = row.cells[index];
      if (!numeric) return cell.textContent;
      return "value" in cell.dataset ? Number(cell.dataset.value) : null;
    };
    const compare = (a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (numeric ? x - y : x.localeCompare(y, undefined, { numeric: true }));
    };
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", next);
    body.append(...[...body.rows].sort(compare));
  }));
}

// Filters: rows and matrices of another measure or prompt set are hidden.
for (const part of document.querySelectorAll(".everything")) {
  const measure = part.querySelector("select.measure"), set = part.querySelector("select.set");
  if (!measure) continue;
  const hides = (select, value) => value !== undefined && select.value !== "" && select.value !== value;
  const filter = () => part.querySelectorAll("[data-measure], [data-set]").forEach((element) => {
    element.hidden = hides(measure, element.dataset.measure) || hides(set, element.dataset.set);
  });
  measure.addEventListener("change", filter);
  set.addEventListener("change", filter);
  filter();
}

// Galleries: one slider per suite; a column without a picture at that epoch shows its last one before it.
for (const gallery of document.querySelectorAll(".gallery")) {
  const epochs = JSON.parse(gallery.dataset.epochs);
  const slider = gallery.querySelector("input");
  const output = gallery.querySelector("output");
  const tables = [...gallery.querySelectorAll("table.samples")].map((table) => ({
    table, columns: read(table.closest("details"), "script.pictures"),
  }));
  const show = () => {
    const epoch = epochs[Number(slider.value)];
    output.textContent = epoch;
    slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
    for (const { table, columns } of tables) columns.forEach((own, place) => {
      const at = own.epochs.filter((e) => e <= epoch).pop();
      const column = at === undefined ? columns[0] : own;
      const index = at === undefined ? 0 : own.epochs.indexOf(at);
      table.style.setProperty(`--picture-${place}`, `url("${column.pictures[index]}")`);
      [...table.tBodies[0].rows].forEach((row, prompt) => {
        const scores = column.scores[index]?.[prompt] ?? [];
        row.cells[place + 1].querySelectorAll(".score").forEach((score, tile) => { score.textContent = scores[tile] ?? ""; });
      });
    });
  };
  slider.addEventListener("input", show);
  show();
}

// Algorithms: a chip hides one, wherever its suite shows it; curves listen for "methods".
for (const suite of document.querySelectorAll(".suite")) {
  suite.hiddenMethods = new Set();
  suite.addEventListener("click", (event) => {
    const chip = event.target.closest(".chip");
    if (!chip) return;
    const name = chip.dataset.method, hidden = suite.hiddenMethods;
    if (!hidden.delete(name)) hidden.add(name);
    for (const element of suite.querySelectorAll("[data-method]")) {
      const off = hidden.has(element.dataset.method);
      if (element.matches(".chip")) element.setAttribute("aria-pressed", String(!off));
      else element.hidden = off;
    }
    suite.dispatchEvent(new Event("methods"));
  });
}

// Light or dark: the system's choice until the button is used.
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
