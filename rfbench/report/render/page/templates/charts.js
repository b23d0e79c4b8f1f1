// Curves, drawn from the numbers of the analysis, which stand in the page as JSON. Only places are computed here.
const draw = (parent, name, attributes = {}, text = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return parent.appendChild(element);
};
const make = (parent, name, properties = {}) => parent.appendChild(Object.assign(document.createElement(name), properties));

/** Round values between low and high, about `count` of them. */
const ticks = (low, high, count) => {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
};
/** Numbers of one axis, all in units, thousands or millions, by the largest of them. */
const shortened = (values, digits) => {
  const largest = Math.max(...values.map(Math.abs));
  const [unit, name] = largest >= 1e6 ? [1e6, " M"] : largest >= 1e4 ? [1e3, " k"] : [1, ""];
  return (value) => (unit === 1 ? value.toFixed(digits) : value ? `${+(value / unit).toPrecision(3)}${name}` : "0");
};
const named = ({ name, role, unit }) => `change in ${name}${role === "diagnostic" && unit ? `, ${unit}` : ""}`;
const signed = (value, digits) => `${value >= 0 ? "+" : ""}${value.toFixed(digits)}`;
const whole = (value) => Math.round(value).toLocaleString("en");

const EDGE = { top: 10, right: 12, bottom: 36, left: 52 };
const CAPTIONS = {
  course: "Mean change from the base model; bands: its 95 % interval over seeds and prompts.",
  frontier: "The same by the change in another measure; the last evaluation is marked. "
    + "A held-out reward that falls while the training reward rises is being hacked.",
};

class Chart {
  constructor(figure, data, hidden) {
    Object.assign(this, { figure, data, hidden, kind: figure.dataset.kind, all: false });
    this.y = figure.querySelector("select.y");
    this.x = figure.querySelector("select.x");
    this.toggle = figure.querySelector("button.whole");
    for (const measure of data.measures) make(this.y, "option", { value: measure.name, textContent: `${measure.name} (${measure.role})` });
    if (this.kind === "course") for (const axis of data.axes) make(this.x, "option", { value: axis.key, textContent: axis.label });
    else for (const measure of data.measures) make(this.x, "option", { value: measure.name, textContent: measure.name });
    this.y.value = data.y;
    this.x.value = this.kind === "course" ? data.x : data.frontier;
    for (const select of [this.x, this.y]) select.addEventListener("change", () => this.render());
    this.toggle.addEventListener("click", () => {
      this.all = !this.all;
      this.toggle.setAttribute("aria-pressed", String(this.all));
      this.render();
    });
    this.box = figure.querySelector(".panels");
    new ResizeObserver(() => this.width !== this.box.clientWidth && this.render()).observe(this.box);
  }

  /** What stands across, in a word; nothing for epochs, which are always said. */
  unit() { return { epochs: "", calls: "calls" }[this.x.value] ?? this.x.selectedOptions[0].textContent; }

  measure(name) { return this.data.measures.find((measure) => measure.name === name); }

  render() {
    this.width = this.box.clientWidth;
    if (!this.width) return;
    this.box.replaceChildren();
    const y = this.measure(this.y.value), across = this.kind === "frontier" ? this.measure(this.x.value) : null;
    const shown = y.sets
      .map((set) => ({ set, other: across?.sets.find((candidate) => candidate.name === set.name) }))
      .filter(({ other }) => other || !across)
      .map((part) => ({ ...part, panel: make(this.box, "div", { className: "panel" }) }));  // all, so that widths are final
    for (const { set, other, panel } of shown) this.panel(panel, y, set, across, other);
    const beside = !across && shown.some(({ set }) => set.paper.some((curve) => curve[this.x.value]));
    this.figure.querySelector("figcaption").textContent = CAPTIONS[this.kind] + (beside ? " Thin lines: the paper's." : "");
    this.toggle.hidden = !shown.some(({ set, other }) => set.outside.length || other?.outside.length);
  }

  /** The points of every algorithm that is shown, in the panel's own units. */
  lines(set, other) {
    const key = this.x.value;
    return this.data.methods.flatMap((method) => {
      const curve = set.curves[method.name];
      if (!curve || this.hidden.has(method.name)) return [];
      const theirs = other?.curves[method.name];
      const points = curve.epochs.flatMap((epoch, i) => {
        const at = other ? theirs?.gain[theirs.epochs.indexOf(epoch)] : curve[key][i];
        const point = { epoch, x: at, y: curve.gain[i], low: curve.gain_low[i], high: curve.gain_high[i], mean: curve.mean[i] };
        return at === null || at === undefined || point.y === null ? [] : [point];
      });
      return points.length ? [{ method, points }] : [];
    });
  }

  panel(panel, measure, set, across, other) {
    make(panel, "p", { className: "panel-title", textContent: set.label.endsWith(")") ? set.label : `${set.label} prompts` });
    const plot = make(panel, "div", { className: "plot", tabIndex: 0 });
    const width = plot.clientWidth, height = Math.round(Math.min(240, Math.max(210, width * 0.5)));
    const lines = this.lines(set, other);
    const ending = ({ method, points }) => {
      const last = points[points.length - 1];
      return `${method.name}, which ends at ${signed(last.y, measure.digits)}${across ? `, ${across.name} ${signed(last.x, across.digits)}` : ""}`;
    };
    const [bottom, top] = this.all ? set.whole : set.limits;
    const costs = this.data.methods.flatMap(({ name }) => set.curves[name]?.[this.x.value] ?? []).filter((cost) => cost !== null);
    const [left, right] = other ? (this.all ? other.whole : other.limits) : [0, Math.max(...costs, 0) || 1];
    const place = {
      x: (value) => EDGE.left + ((value - left) / (right - left)) * (width - EDGE.left - EDGE.right),
      y: (value) => height - EDGE.bottom - ((value - bottom) / (top - bottom)) * (height - EDGE.top - EDGE.bottom),
    };
    const svg = draw(plot, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const frame = { width, height, left, right, bottom, top };
    this.axes(svg, place, frame, across ? named(across) : this.data.axes.find((axis) => axis.key === this.x.value).label);
    this.curves(svg, place, frame, lines, Boolean(other), set.paper);
    const gone = lines.filter(({ method }) => set.outside.includes(method.name) || other?.outside.includes(method.name));
    if (gone.length && !this.all) make(panel, "p", { className: "outside note", textContent: `Beyond the axes: ${gone.map(ending).join("; ")}.` });
    const title = `Change in ${measure.name}, ${set.label} prompts, by ${this.x.selectedOptions[0].textContent}`;
    new Reader(plot, svg, place, frame, lines, { title, digits: measure.digits, free: Boolean(other), across, unit: this.unit() });
  }

  axes(svg, place, { width, height, left, right, bottom, top }, label) {
    const group = draw(svg, "g", { class: "axes" });
    const rows = ticks(bottom, top, 5), columns = ticks(left, right, Math.max(3, Math.floor(width / 110)));
    const [down, along] = [rows, columns].map(({ values, digits }) => shortened(values, digits));
    for (const value of rows.values) {
      const y = place.y(value);
      draw(group, "line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y, y2: y });
      draw(group, "text", { x: EDGE.left - 8, y: y + 4, "text-anchor": "end" }, down(value));
    }
    for (const value of columns.values) {
      draw(group, "text", { x: place.x(value), y: height - EDGE.bottom + 16, "text-anchor": "middle" }, along(value));
    }
    draw(group, "text", { x: (EDGE.left + width - EDGE.right) / 2, y: height - 3, "text-anchor": "middle" }, label);
    if (bottom < 0 && top > 0) draw(group, "line", { class: "zero", x1: EDGE.left, x2: width - EDGE.right, y1: place.y(0), y2: place.y(0) });
  }

  curves(svg, place, { width, height }, lines, free, paper) {
    const id = `clip-${Chart.clips = (Chart.clips ?? 0) + 1}`;
    const clip = draw(draw(svg, "defs"), "clipPath", { id });
    draw(clip, "rect", { x: EDGE.left - 6, y: EDGE.top - 6, width: width - EDGE.left - EDGE.right + 12, height: height - EDGE.top - EDGE.bottom + 12 });
    const group = draw(svg, "g", { "clip-path": `url(#${id})` });
    const path = (values) => values.map(([x, y]) => `${place.x(x).toFixed(1)},${place.y(y).toFixed(1)}`).join(" ");
    for (const curve of free ? [] : paper) {
      const xs = curve[this.x.value];
      if (xs) draw(group, "polyline", { class: `line paper ${curve.colour}`, points: path(xs.map((x, i) => [x, curve.gain[i]])) });
    }
    for (const { method, points } of [...lines].reverse()) {  // the best lies on top
      const curve = draw(group, "g", { class: `curve ${method.colour}`, "data-curve": method.name });
      const banded = points.filter((point) => point.low !== null);
      if (!free && banded.length > 1) {
        const back = [...banded].reverse().map((point) => [point.x, point.low]);
        draw(curve, "polygon", { class: "band", points: path([...banded.map((point) => [point.x, point.high]), ...back]) });
      }
      draw(curve, "polyline", { class: "line", "stroke-dasharray": method.dash, points: path(points.map((point) => [point.x, point.y])) });
      const every = Math.ceil(points.length / 12);
      const marked = free ? points.slice(-1) : points.filter((_, i) => (points.length - 1 - i) % every === 0);
      for (const point of marked) this.mark(curve, method, place.x(point.x), place.y(point.y), free ? 12 : 9);
    }
  }

  mark(parent, method, x, y, size) {
    draw(parent, "use", { href: `#${method.symbol}`, x: x - size / 2, y: y - size / 2, width: size, height: size });
  }
}

/** What a pointer or the arrow keys read off one panel: the values of every algorithm at one evaluation. */
class Reader {
  constructor(plot, svg, place, frame, lines, { title, digits, free, across, unit }) {
    Object.assign(this, { plot, place, frame, lines, digits, free, across, unit });
    this.epochs = [...new Set(lines.flatMap(({ points }) => points.map((point) => point.epoch)))].sort((a, b) => a - b);
    if (!this.epochs.length) return;
    this.cursor = draw(svg, "g", { class: "cursor" });
    this.tip = make(plot, "div", { className: "tip", hidden: true });
    this.tip.setAttribute("aria-hidden", "true");
    const last = this.epochs.length - 1;
    for (const [key, value] of Object.entries({ role: "slider", "aria-label": `${title}: evaluation`, "aria-valuemin": 0, "aria-valuemax": last })) {
      plot.setAttribute(key, value);
    }
    this.announce(last);
    plot.addEventListener("pointermove", (event) => this.show(this.nearest(event)));
    plot.addEventListener("pointerdown", (event) => this.show(this.nearest(event)));
    plot.addEventListener("pointerleave", () => this.hide());
    plot.addEventListener("focus", () => plot.matches(":focus-visible") && this.show(this.at));
    plot.addEventListener("blur", () => this.hide());
    plot.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: this.at - 1, ArrowDown: this.at - 1, ArrowRight: this.at + 1, ArrowUp: this.at + 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.show(Math.min(last, Math.max(0, to)));
    });
  }

  /** The evaluation whose point lies nearest; across costs, mostly by the horizontal distance. */
  nearest(event) {
    const box = this.plot.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const weight = this.free ? 1 : 0.1;
    let best = Infinity, found = this.at;
    for (const { points } of this.lines) for (const point of points) {
      const distance = Math.hypot(this.place.x(point.x) - x, weight * (this.place.y(point.y) - y));
      if (distance < best) [best, found] = [distance, this.epochs.indexOf(point.epoch)];
    }
    return found;
  }

  rows() {
    const epoch = this.epochs[this.at];
    return this.lines
      .flatMap(({ method, points }) => points.filter((point) => point.epoch === epoch).map((point) => ({ method, point })))
      .sort((a, b) => b.point.y - a.point.y);
  }

  announce(at) {
    this.at = at;
    const text = this.rows().map(({ method, point }) => `${method.name} ${signed(point.y, this.digits)}`).join(", ");
    this.plot.setAttribute("aria-valuenow", at);
    this.plot.setAttribute("aria-valuetext", `epoch ${this.epochs[at]}: ${text}`);
  }

  show(at) {
    this.announce(at);
    const rows = this.rows(), { place, frame, digits, tip } = this;
    this.cursor.replaceChildren();
    tip.replaceChildren();
    tip.hidden = false;
    const across = (point) => (this.across ? signed(point.x, this.across.digits) : whole(point.x));
    const costs = [...new Set(rows.map(({ point }) => across(point)))];
    const apart = this.unit && costs.length > 1;  // each at a cost of its own
    make(tip, "p", { textContent: `epoch ${this.epochs[at]}${this.unit && !apart ? `, ${costs[0]} ${this.unit}` : ""}` });
    const table = make(tip, "table");
    const line = (cells) => {
      const row = make(table, "tr");
      return cells.map(([textContent, className]) => make(row, "td", { textContent, className }));
    };
    line(["", "change", "95 % interval", "value", ...(apart ? [this.unit] : [])].map((heading) => [heading, "detail"]));
    for (const { method, point } of rows) {
      const [name] = line([
        ["", ""],
        [signed(point.y, digits), "number"],
        [point.low === null ? "" : `[${point.low.toFixed(digits)}, ${point.high.toFixed(digits)}]`, "detail"],
        [point.mean.toFixed(digits), "number detail"],
        ...(apart ? [[across(point), "number detail"]] : []),
      ]);
      draw(draw(name, "svg", { class: `mark ${method.colour}` }), "use", { href: `#${method.symbol}` });
      name.append(method.name);
      const x = place.x(point.x), y = place.y(point.y);
      if (x < EDGE.left - 1 || x > frame.width - EDGE.right + 1 || y < EDGE.top - 1 || y > frame.height - EDGE.bottom + 1) continue;
      draw(this.cursor, "circle", { class: method.colour, cx: x, cy: y, r: 7 });
    }
    const x = rows.length ? place.x(rows[0].point.x) : EDGE.left;
    if (!this.free) draw(this.cursor, "line", { x1: x, x2: x, y1: EDGE.top, y2: frame.height - EDGE.bottom });
    const width = tip.offsetWidth, right = x + 14, left = x - 14 - width;
    const fits = right + width <= frame.width || left >= 0;  // else it stands below, and covers nothing of its panel
    tip.style.left = `${!fits ? 0 : right + width <= frame.width ? right : left}px`;
    tip.style.top = fits ? "8px" : `${frame.height}px`;
  }

  hide() {
    this.tip.hidden = true;
    this.cursor.replaceChildren();
  }
}

for (const suite of document.querySelectorAll(".suite")) {
  if (!suite.querySelector("script.data")) continue;
  const data = read(suite, "script.data");
  if (data.measures.length < 2) suite.querySelector("[data-kind=frontier]").remove();
  const charts = [...suite.querySelectorAll("figure.chart")].map((figure) => new Chart(figure, data, suite.hiddenMethods));
  const render = () => charts.forEach((chart) => chart.render());
  suite.addEventListener("methods", render);
  render();
}
