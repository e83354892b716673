// Drawing: plain SVG from numbers. Text goes in as text nodes only.

const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  for (const child of children) node.append(child);
  return node;
}

function text(x, y, words, attributes = {}) { return make("text", { x, y, ...attributes }, words); }

function line(x1, y1, x2, y2, style) { return make("line", { x1, y1, x2, y2, class: style }); }

function path(points, style, attributes = {}) {
  const steps = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`);
  return make("path", { d: steps.join(""), class: style, ...attributes });
}

// An empty drawing in a box of the page, as wide as the box, with a description for those who cannot see it.
function canvas(box, height, label) {
  const width = Math.max(280, box.clientWidth);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  box.replaceChildren(svg);
  return { svg, width, height };
}

let clips = 0;
function clipped(svg, left, top, width, height) {
  const id = `clip-${++clips}`;
  svg.append(make("clipPath", { id }, make("rect", { x: left, y: top, width, height })));
  const group = make("g", { "clip-path": `url(#${id})` });
  svg.append(group);
  return group;
}

// About `count` round numbers between two ends.
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(+(k * step).toPrecision(12));
  return found;
}

// Powers of ten between two ends, at most `count` of them.
function decades(low, high, count) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / count));
  const found = [];
  for (let k = last; k >= first; k -= step) found.unshift(k);
  return found;
}

function power(exponent, sign = "") {
  const node = make("tspan", {}, exponent === 0 ? `${sign}1` : exponent === 1 ? `${sign}10` : `${sign}10`);
  if (exponent === 0 || exponent === 1) return [node];
  return [node, make("tspan", { dy: -4, "font-size": 9 }, String(exponent).replace("-", "\u2212"))];
}

// A horizontal axis of sparsity on which equal ratios of density have equal distances.
function sparsityAxis(left, width, most) {
  const end = -Math.log10(1 - most);
  const at = (sparsity) => left + width * Math.min(1.02, -Math.log10(Math.max(1 - sparsity, 1e-12)) / end);
  const places = [0.9, 0, 0.5, 0.99, 0.8, 0.7, 0.95, 0.98, 0.3, 0.999, 0.6, 0.995, 0.97, 0.998, 0.9999];
  const shown = [];
  for (const place of places)
    if (place <= most * 1.0001 && shown.every((other) => Math.abs(at(other) - at(place)) > 36)) shown.push(place);
  return { at, ticks: shown.sort((a, b) => a - b) };
}

// Fewer points where neighbours fall on the same pixel.
function thinned(points) {
  let last = null;
  return points.filter((point, i) => {
    const keep = !last || Math.hypot(point[0] - last[0], point[1] - last[1]) > 0.8 || i === points.length - 1;
    if (keep) last = point;
    return keep;
  });
}
