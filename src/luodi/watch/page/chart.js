// Line charts in SVG: axes, lines, and what lies under the pointer.
import { figure, make } from "./words.js";

const NAMES = "http://www.w3.org/2000/svg";
const NEAR = 24; // pixels: a line that has nothing so near is left out
const MARGIN = { left: 50, right: 14, top: 10, bottom: 26 };

function draw(tag, facts, parent) {
  const element = document.createElementNS(NAMES, tag);
  for (const [name, value] of Object.entries(facts)) element.setAttribute(name, value);
  if (parent) parent.append(element);
  return element;
}

// Round numbers between two values, about so many.
export function ticks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((one) => one * power >= raw) * power;
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step / 1e6 ? 0 : value);
  return found;
}

function decades(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const part of [1, 2, 5]) if (part * 10 ** power >= low && part * 10 ** power <= high) found.push(part * 10 ** power);
  }
  while (found.length > 6) for (let place = found.length - 1; place >= 0; place -= 2) found.splice(place, 1);
  return found;
}

// At most two points a column, the lowest and the highest: no peak is lost.
function thinned(points, across, width) {
  if (points.length < 3 * width) return points;
  const columns = new Map();
  for (const point of points) {
    const column = Math.round(across(point[0]));
    const known = columns.get(column);
    if (!known) columns.set(column, [point, point]);
    else columns.set(column, [point[1] < known[0][1] ? point : known[0], point[1] > known[1][1] ? point : known[1]]);
  }
  return [...columns.values()].flatMap(([low, high]) => (low === high ? [low] : [low, high].sort((a, b) => a[0] - b[0])));
}

export class Chart {
  constructor(title) {
    this.heading = make("h2", "", title);
    this.legend = make("p", "legend");
    this.plot = make("div", "plot");
    this.tip = make("div", "tip");
    this.tip.hidden = true;
    this.element = make("figure", "card chart", [make("figcaption", "", [this.heading, this.legend]), this.plot]);
    this.plot.append(this.tip);
    this.plot.setAttribute("role", "img");
    this.lines = [];
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  // lines: {name, color, dash, faint, dots, points: [[x, y]...]}
  show(title, lines, { log = false, axis = "", zero = false } = {}) {
    this.heading.textContent = title;
    this.log = log;
    this.axis = axis;
    this.zero = zero;
    const fine = (value) => Number.isFinite(value) && (!log || value > 0);
    this.lines = lines.map((line) => ({ ...line, points: line.points.filter(([x, y]) => Number.isFinite(x) && y !== null && fine(y)) }));
    this.lines = this.lines.filter((line) => line.points.length);
    this.legend.replaceChildren(...this.lines.filter((line) => !line.unnamed).map((line) => this.key(line)));
    this.element.hidden = this.lines.length === 0;
    const ends = this.lines.map((line) => `${line.name} ${figure(line.points[line.points.length - 1][1])}`);
    this.plot.setAttribute("aria-label", `${title}: ${ends.join(", ")}`);
    this.draw();
  }

  key(line) {
    const mark = make("span", `mark${line.dash ? " dashed" : ""}`);
    mark.style.setProperty("--colour", line.color);
    return make("span", "key", [mark, make("span", "", line.name)]);
  }

  draw() {
    const width = this.plot.clientWidth;
    const height = this.plot.clientHeight;
    this.plot.querySelector("svg")?.remove();
    if (!width || !this.lines.length) return;
    this.scale(width, height);
    const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    this.grid(svg, width, height);
    for (const line of this.lines) this.line(svg, line, width);
    this.cross = draw("line", { class: "cross", y1: MARGIN.top, y2: height - MARGIN.bottom, visibility: "hidden" }, svg);
    this.plot.prepend(svg);
  }

  scale(width, height) {
    const xs = this.lines.flatMap((line) => line.points.map((point) => point[0]));
    const ys = this.lines.flatMap((line) => line.points.map((point) => point[1]));
    const bend = this.log ? Math.log10 : (value) => value;
    let [left, right] = [min(xs), max(xs)];
    if (left === right) [left, right] = [left - 0.5, right + 0.5];
    let [low, high] = [min(ys), max(ys)];
    if (this.zero) low = Math.min(low, 0);
    if (low === high) [low, high] = this.log ? [low / 2, high * 2] : [low - (Math.abs(low) * 0.1 || 0.5), high + (Math.abs(high) * 0.1 || 0.5)];
    else if (!this.log) [low, high] = [this.zero && low === 0 ? 0 : low - (high - low) * 0.04, high + (high - low) * 0.06];
    this.low = low;
    this.high = high;
    this.left = left;
    this.right = right;
    this.x = (value) => MARGIN.left + ((value - left) / (right - left)) * (width - MARGIN.left - MARGIN.right);
    this.y = (value) => MARGIN.top + ((bend(high) - bend(value)) / (bend(high) - bend(low))) * (height - MARGIN.top - MARGIN.bottom);
  }

  grid(svg, width, height) {
    const marks = this.log ? decades(this.low, this.high) : ticks(this.low, this.high, height / 46);
    for (const value of marks) {
      const y = this.y(value);
      if (y < MARGIN.top - 1 || y > height - MARGIN.bottom + 1) continue;
      draw("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }, svg);
      draw("text", { class: "scale", x: MARGIN.left - 7, y: y + 4, "text-anchor": "end" }, svg).textContent = short(value);
    }
    for (const value of ticks(this.left, this.right, (width - 60) / 74)) {
      draw("text", { class: "scale", x: this.x(value), y: height - 8, "text-anchor": "middle" }, svg).textContent = short(value);
    }
    draw("line", { class: "base", x1: MARGIN.left, x2: width - MARGIN.right, y1: height - MARGIN.bottom, y2: height - MARGIN.bottom }, svg);
  }

  line(svg, line, width) {
    const points = thinned(line.points, this.x, width);
    const path = points.map(([x, y], place) => `${place ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("");
    const facts = { d: path, class: `line${line.faint ? " faint" : ""}`, stroke: line.color };
    if (line.dash) facts["stroke-dasharray"] = "6 4";
    draw("path", facts, svg);
    if (line.dots || points.length === 1) {
      if (points.length > 60) return;
      for (const [x, y] of points) draw("circle", { cx: this.x(x), cy: this.y(y), r: points.length > 25 ? 2 : 3, fill: line.color }, svg);
    }
  }

  // The values of every line that are nearest to the pointer.
  point(event) {
    this.tip.hidden = true;
    this.cross?.setAttribute("visibility", "hidden");
    if (event === null || !this.lines.length || !this.x) return;
    const box = this.plot.getBoundingClientRect();
    const at = event.clientX - box.left;
    const near = this.lines.map((line) => nearest(line.points, at, this.x));
    const middle = near.reduce((best, one) => (Math.abs(this.x(one[0]) - at) < Math.abs(this.x(best[0]) - at) ? one : best));
    this.cross.setAttribute("x1", this.x(middle[0]));
    this.cross.setAttribute("x2", this.x(middle[0]));
    this.cross.setAttribute("visibility", "visible");
    const here = this.lines.map((line, place) => [line, near[place]]).filter(([, one]) => Math.abs(this.x(one[0]) - this.x(middle[0])) < NEAR);
    const rows = here.map(([line, one]) => make("div", "tip-row", [this.key(line), make("b", "", figure(one[1], 4))]));
    this.tip.replaceChildren(make("div", "tip-at", `${this.axis} ${figure(middle[0], 4)}`), ...rows);
    this.tip.hidden = false;
    const wide = this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(at + 14, box.width - wide))}px`;
    if (at + 14 + wide > box.width) this.tip.style.left = `${Math.max(0, at - wide - 14)}px`;
  }
}

const min = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const max = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

function nearest(points, at, across) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (across(points[middle][0]) < at) low = middle;
    else high = middle;
  }
  return Math.abs(across(points[low][0]) - at) <= Math.abs(across(points[high][0]) - at) ? points[low] : points[high];
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${figure(value / 1e6)}M`;
  if (size >= 1e4) return `${figure(value / 1e3)}k`;
  return figure(value, 3);
}
