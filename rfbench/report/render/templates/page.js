"use strict";
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

// Galleries: one slider per suite; a column without a picture at that epoch shows its last one before it.
for (const gallery of document.querySelectorAll(".gallery")) {
  const epochs = JSON.parse(gallery.dataset.epochs);
  const slider = gallery.querySelector("input");
  const output = gallery.querySelector("output");
  const tables = [...gallery.querySelectorAll("table.samples")];
  const pictures = [...gallery.querySelectorAll("script.pictures")].map((script) => JSON.parse(script.textContent));
  const show = () => {
    const epoch = epochs[Number(slider.value)];
    output.textContent = epoch;
    slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
    tables.forEach((table, t) => pictures[t].forEach((column, c) => {
      const known = Object.keys(column).map(Number).sort((a, b) => a - b);
      const base = Object.values(pictures[t][0])[0];
      const latest = known.filter((e) => e <= epoch).pop();
      const picture = latest === undefined ? base : column[latest];
      table.style.setProperty(`--picture-${c}`, `url("${picture}")`);
    }));
  };
  slider.addEventListener("input", show);
  show();
}

// Light or dark: the system's choice until the button is used.
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
