// The page: what is drawn where, and the slider.

const data = JSON.parse(document.getElementById("numbers").textContent);
const byId = (id) => document.getElementById(id);
const LEFT = 92, RIGHT = 14;
const ROWS = [
  ["measured", "measured"], ["certified", "certified"], ["predicted", "predicted"],
  ["recoverable", "recoverable"], ["limit", "limit"],
];
const state = { unit: data.start.unit, value: data.start.value };
const signed = (x, digits) => (x > 0 ? "+" : x < 0 ? "\u2212" : "") + number(Math.abs(x), digits);

// The ends of an answer as sparsities, or null if it is not known for what may be lost now.
function span(found, name) {
  const one = (x) => (x === null || x === undefined ? null : { low: x, high: x, at: x });
  if (name === "measured") return found.measured ? one(found.measured.sparsity) : null;
  if (name === "certified") return found.certified ? one(found.certified.sparsity) : null;
  if (name === "predicted") return one(found.predicted);
  const ends = found[name];
  return ends && { low: ends.low, high: ends.high, at: name === "limit" && ends.resolved ? ends.middle : null };
}

function spoken(ends) {
  if (ends.at !== null) return percent(ends.at);
  return `${percent(ends.low)} to ${percent(ends.high)}`;
}

function highestSparsity() {
  const tolerances = [data.tolerance, state.unit === "loss" ? state.value : data.tolerance];
  const ends = tolerances.map((t) => { const b = bracket(data.limit, t); return b.resolved ? b.high : b.low; });
  const known = [...ends, largestWithin(data.predicted, data.tolerance), data.recoverable ? data.recoverable.high : 0];
  const highest = Math.min(Math.max(...known.filter((s) => s < 1), 0.8), 0.9999);
  return 1 - Math.max((1 - highest) / 4, 2 / data.weights, 1e-5);
}
const MOST = highestSparsity();

function drawCurves(found) {
  const rows = ROWS.filter(([name]) => span(found, name) || name === "limit");
  const scored = Boolean(data.metric), height = (scored ? 205 : 0) + 205 + 34 * rows.length + 42;
  const { svg, width } = canvas(byId("curves"), height, described(found));
  const plot = width - LEFT - RIGHT, axis = sparsityAxis(LEFT, plot, MOST);
  const panels = [];
  if (scored) panels.push({ top: 26, size: 160, ...scorePanel(found) });
  panels.push({ top: scored ? 231 : 26, size: 160, ...lossPanel(found) });
  const first = panels[0].top, below = panels[panels.length - 1].top + 160, end = below + 20 + 34 * rows.length;
  for (const place of axis.ticks) {
    const x = axis.at(place);
    svg.append(line(x, first, x, end, "grid"), text(x, end + 16, number(100 * place, 5), { "text-anchor": "middle" }));
  }
  band(svg, found, axis, first, end);
  for (const panel of panels) drawPanel(svg, panel, axis, plot);
  svg.append(line(LEFT, end, LEFT + plot, end, "axis"));
  svg.append(text(LEFT + plot, end + 33, "sparsity: weights removed, %", { "text-anchor": "end" }));
  if (found.measured) {
    const x = axis.at(found.measured.sparsity);
    svg.append(line(x, first, x, below + 18, "guide"));
  }
  rows.forEach(([name, words], i) => drawRow(svg, found, name, words, axis, plot, below + 37 + 34 * i));
}

function band(svg, found, axis, top, end) {
  const ends = span(found, "limit");
  if (!ends) return;
  const from = axis.at(ends.low), to = Math.min(axis.at(ends.high), axis.at(MOST));
  svg.append(make("rect", { x: from, y: top, width: Math.max(1.5, to - from), height: end - top, class: ends.at === null ? "band wide" : "band" }));
}

function drawRow(svg, found, name, words, axis, plot, y) {
  const ends = span(found, name), group = make("g", { class: `c-${name}` });
  group.append(text(LEFT - 12, y + 4, words, { class: "row", "text-anchor": "end" }));
  group.append(line(LEFT, y, LEFT + plot, y, "grid"));
  const most = axis.at(MOST);
  if (!ends) {
    group.append(text(LEFT + 8, y + 4, "needs a rise of the loss", { class: "halo" }));
  } else {
    const from = Math.min(axis.at(ends.low), most), to = Math.min(axis.at(ends.high), most);
    if (ends.high > ends.low) group.append(line(from, y, Math.max(to, from + 1), y, "span"));
    if (ends.at !== null) group.append(mark(name, Math.min(axis.at(ends.at), most), y));
    group.append(besideSpan(spoken(ends) + remark(found, name), from, to, LEFT + plot, y));
  }
  svg.append(group);
}

// A text right of a span, left of it, or above it, whichever has room.
function besideSpan(words, from, to, end, y) {
  const long = 7.4 * words.length + 12;
  if (to + long < end) return text(to + 12, y + 4, words, { class: "row halo" });
  if (from - long > LEFT) return text(from - 12, y + 4, words, { class: "row halo", "text-anchor": "end" });
  return text(Math.max(LEFT, Math.min(from, end - long + 12)), y - 9, words, { class: "row halo" });
}

// What must be said beside an answer that failed, or that is for something else than the slider's place.
function remark(found, name) {
  if (name === "predicted" && found.checked && !found.checked.holds) return ", failed when measured";
  if (name !== "certified" || data.certificate.drop === null) return "";
  const same = found.unit === "drop" && Math.abs(found.value - data.certificate.drop) < 1e-9;
  return same ? "" : `, for ${dropWords(data.certificate.drop)}`;
}

function mark(name, x, y) {
  if (name === "measured") return make("circle", { cx: x, cy: y, r: 6, class: "mark" });
  if (name === "certified") return path([[x, y - 8], [x + 7, y], [x, y + 8], [x - 7, y]], "mark");
  if (name === "predicted") return path([[x, y - 8], [x + 7.5, y + 6], [x - 7.5, y + 6]], "mark");
  return make("rect", { x: x - 5.5, y: y - 5.5, width: 11, height: 11, class: "mark" });
}

function scorePanel(found) {
  const unit = data.metric.share ? 100 : 1, curve = data.measured, dense = unit * curve.accuracy[0];
  const drop = found.unit === "drop" ? unit * found.value : 0;
  const reach = Math.max(5 * drop, 0.06 * Math.abs(dense));
  return {
    name: `${data.metric.name}${data.metric.share ? ", %" : ""}`, low: dense - reach, high: dense + 0.25 * reach,
    curves: [{ points: curve.sparsity.map((s, i) => [s, unit * curve.accuracy[i]]), style: "measured", dots: true }],
    lines: found.unit === "drop" && drop > 0 ? [{ at: dense - drop, words: "allowed" }] : [{ at: dense, words: "dense" }],
  };
}

function lossPanel(found) {
  const curve = data.train ?? data.measured, tolerance = found.tolerance;
  const reach = tolerance > 0 ? tolerance : data.tolerance;
  const curves = [
    { points: data.predicted.sparsity.map((s, i) => [s, data.predicted.random[i]]), style: "random" },
    { points: data.predicted.sparsity.map((s, i) => [s, data.predicted.increase[i]]), style: "predicted" },
  ];
  if (curve) curves.push({ points: curve.sparsity.map((s, i) => [s, curve.loss[i] - curve.loss[0]]), style: "measured", dots: true });
  const lowest = Math.min(0, ...curves[curves.length - 1].points.map(([, y]) => y));
  return {
    name: "rise of the loss", low: Math.max(1.25 * lowest, -2 * reach) - 0.25 * reach, high: 3.6 * reach, curves,
    lines: tolerance > 0 ? [{ at: tolerance, words: "allowed" }] : [],
  };
}

function drawPanel(svg, panel, axis, plot) {
  const { top, size, low, high } = panel, at = (y) => top + size * (high - y) / (high - low);
  svg.append(text(LEFT, top - 10, panel.name, { class: "title" }));
  for (const tick of ticks(low, high, 4)) {
    svg.append(line(LEFT, at(tick), LEFT + plot, at(tick), "grid"));
    svg.append(text(LEFT - 10, at(tick) + 4, number(tick, 4).replace("-", "\u2212"), { "text-anchor": "end" }));
  }
  const inside = clipped(svg, LEFT, top - 4, plot + 4, size + 8);
  for (const { at: y } of panel.lines) inside.append(line(LEFT, at(y), LEFT + plot, at(y), "allowed"));
  for (const curve of panel.curves) {
    const points = curve.points.map(([s, y]) => [axis.at(s), Math.min(Math.max(at(y), -2000), 4000)]);
    inside.append(path(thinned(points), curve.style));
    if (!curve.dots) continue;
    points.forEach(([x, y], i) => {
      const dot = make("circle", { cx: x, cy: y, r: 2.75, class: "dot" });
      dot.append(make("title", {}, `${percent(curve.points[i][0])} removed: ${number(curve.points[i][1], 4)}`));
      inside.append(dot);
    });
  }
  for (const { at: y, words } of panel.lines) svg.append(text(LEFT + 6, at(y) - 5, words, { class: "halo" }));
}

function described(found) {
  const known = ROWS.map(([name, words]) => [words, span(found, name)]).filter(([, ends]) => ends);
  return `Curves against sparsity. ${known.map(([words, ends]) => `${words}: ${spoken(ends)}`).join("; ")}.`;
}

function drawLegend() {
  const entries = [["measured", "measured"], ["predicted", "predicted: smallest weights first"], ["random", "predicted: weights at random"]];
  if (!data.train && !data.measured) entries.shift();
  byId("legend").replaceChildren(...entries.map(([style, words]) => {
    const item = document.createElement("li"), svg = make("svg", { viewBox: "0 0 28 10", class: "swatch" });
    svg.append(line(0, 5, 28, 5, style));
    if (style === "measured") svg.append(make("circle", { cx: 14, cy: 5, r: 2.75, class: "dot" }));
    item.append(svg, words);
    return item;
  }));
}

// The spectrum, both sides of 0 on logarithmic axes, with the scale of the limit.
function drawSpectrum(found) {
  const box = byId("spectrum"), { positive, negative, size, largest } = data.spectrum;
  if (!box) return;
  const scale = found.scale, { svg, width } = canvas(box, 300, "How many eigenvalues are larger than a curvature. The numbers are in the table.");
  const low = Math.max(largest * 1e-8, Math.min(largest * 1e-3, (scale ?? largest) / 300)), high = largest * 1.6;
  const left = 56, plot = width - left - RIGHT, gap = 28, top = 26, bottom = 240;
  const both = negative.at.length > 0, middle = both ? left + plot / 2 : left, half = (both ? plot / 2 : plot) - gap / 2;
  const reach = (x) => half * Math.log(Math.min(Math.max(x, low), high) / low) / Math.log(high / low) + gap / 2;
  const y = (count) => bottom - (bottom - top) * Math.log(Math.max(count, 0.5) / 0.5) / Math.log(1.3 * size / 0.5);
  svg.append(text(left, top - 10, "eigenvalues at least this far from 0", { class: "title" }));
  for (const k of decades(0.5, 1.3 * size, 6)) {
    svg.append(line(left, y(10 ** k), left + plot, y(10 ** k), "grid"));
    svg.append(make("text", { x: left - 10, y: y(10 ** k) + 4, "text-anchor": "end" }, ...power(k)));
  }
  for (const [sign, side] of [[1, positive], [-1, negative]]) {
    if (!side.at.length) continue;
    const x = (value) => middle + sign * reach(value);
    for (const k of decades(low * 1.01, high, Math.max(2, Math.floor(half / 44)))) {
      svg.append(line(x(10 ** k), bottom, x(10 ** k), bottom + 5, "axis"));
      svg.append(make("text", { x: x(10 ** k), y: bottom + 20, "text-anchor": "middle" }, ...power(k, sign < 0 ? "\u2212" : "")));
    }
    const steps = [[x(side.at[0]), y(0)]];
    side.at.forEach((value, i) => {
      steps.push([x(value), steps[steps.length - 1][1]], [x(value), y(side.count[i])]);
    });
    steps.push([x(low), steps[steps.length - 1][1]]);
    svg.append(path([...steps, [x(low), bottom]], "area"), path(steps, "line"));
    if (scale && scale > low && scale < high) {
      svg.append(line(x(scale), top, x(scale), bottom, "scale"));
      if (sign > 0) scaleLabel(svg, x(scale), top, left + plot);
    }
  }
  if (both) svg.append(text(middle, bottom + 20, "0", { "text-anchor": "middle" }));
  svg.append(line(left, bottom, left + plot, bottom, "axis"));
  svg.append(text(left + plot, bottom + 42, "eigenvalue of the curvature, loss per squared weight", { "text-anchor": "end" }));
}

function scaleLabel(svg, x, top, end) {
  const room = x + 130 < end;
  svg.append(text(room ? x + 7 : x - 7, top + 12, "scale of the limit", { class: "halo c-limit row", "text-anchor": room ? "start" : "end" }));
}

function drawMagnitudes(found) {
  const box = byId("magnitudes"), { sparsity, size } = data.magnitudes;
  if (!box) return;
  const { svg, width } = canvas(box, 250, "The largest magnitude among the removed weights, against sparsity.");
  const left = 56, plot = width - left - RIGHT, top = 26, bottom = 200, axis = sparsityAxis(left, plot, MOST);
  const most = size[size.length - 1], positive = size.filter((x) => x > 0), low = Math.max(positive[0] ?? 1e-9, most * 1e-6);
  const y = (x) => bottom - (bottom - top) * Math.log(Math.max(x, low) / low) / Math.log(1.2 * most / low);
  svg.append(text(left, top - 10, "largest magnitude removed", { class: "title" }));
  for (const k of decades(low, 1.2 * most, 5)) {
    svg.append(line(left, y(10 ** k), left + plot, y(10 ** k), "grid"));
    svg.append(make("text", { x: left - 10, y: y(10 ** k) + 4, "text-anchor": "end" }, ...power(k)));
  }
  for (const place of axis.ticks) svg.append(text(axis.at(place), bottom + 18, number(100 * place, 5), { "text-anchor": "middle" }));
  band(svg, found, axis, top, bottom);
  const inside = clipped(svg, left, top, plot, bottom - top + 1);
  inside.append(path(sparsity.map((s, i) => [axis.at(s), y(size[i])]), "line"));
  svg.append(line(left, bottom, left + plot, bottom, "axis"));
  svg.append(text(left + plot, bottom + 38, "sparsity: weights removed, %", { "text-anchor": "end" }));
}

function drawLayers() {
  const box = byId("layers");
  if (!box) return;
  const shown = data.layers.map((layer, i) => ({ ...layer, i }))
    .sort((a, b) => Math.abs(b.cost) - Math.abs(a.cost)).slice(0, 16).sort((a, b) => a.i - b.i);
  const { svg, width } = canvas(box, 40 + 40 * shown.length, "Share of weights removed and predicted rise of the loss for each layer.");
  const gap = 28, half = (width - gap) / 2, most = Math.max(...shown.map((layer) => Math.abs(layer.cost))) || 1;
  const least = Math.min(0, ...shown.map((layer) => layer.cost)), range = Math.max(most, 0) - least;
  const zero = half + gap + (half - 64) * -least / range;
  svg.append(text(0, 16, "removed, %", { class: "title" }), text(half + gap, 16, width < 480 ? "predicted rise" : "predicted rise of the loss", { class: "title" }));
  shown.forEach((layer, i) => {
    const y = 46 + 40 * i, long = (half - 64) * layer.cost / range;
    svg.append(text(0, y, shortened(layer.name, half / 6.6)));
    svg.append(make("rect", { x: 0, y: y + 6, width: (half - 48) * layer.sparsity, height: 8, rx: 2, class: "bar" }));
    svg.append(text((half - 48) * layer.sparsity + 6, y + 14, number(100 * layer.sparsity)));
    svg.append(make("rect", { x: Math.min(zero, zero + long), y: y + 6, width: Math.max(Math.abs(long), 1), height: 8, rx: 2, class: "bar cost" }));
    svg.append(text(Math.max(zero, zero + long) + 6, y + 14, number(layer.cost, 2).replace("-", "\u2212")));
  });
}

function shortened(name, most) {
  return name.length <= most ? name : `\u2026${name.slice(-Math.floor(most) + 1)}`;
}

// Where the width of the bracket comes from: one row for each source.
function drawErrors(found) {
  const box = byId("errors");
  if (!box) return;
  if (!found.limit) { box.replaceChildren(); return; }
  const sources = [["steps of Lanczos", "quadrature"], ["random probe", "probe"], ["rounding", "rounding"], ["data are a sample", "data"]];
  const { svg, width } = canvas(box, 34 * sources.length + 6, "Half-widths of the bracket by source, in points of sparsity.");
  const left = 132, room = width - left - 96, most = Math.max(...sources.map(([, name]) => found.limit[name]), 1e-9);
  sources.forEach(([words, name], i) => {
    const y = 22 + 34 * i, long = room * found.limit[name] / most;
    svg.append(text(left - 12, y + 4, words, { "text-anchor": "end" }));
    svg.append(make("rect", { x: left, y: y - 5, width: Math.max(long, 1), height: 10, rx: 2, class: "bar" }));
    svg.append(text(left + Math.max(long, 1) + 8, y + 4, pointsWords(found.limit[name])));
  });
}

function pointsWords(half) {
  if (half === 0) return "none";
  return half < 5e-5 ? "below 0.01 points" : `±${(100 * half).toFixed(2)} points`;
}

function answerTexts(found) {
  const left = (sparsity) => Math.round((1 - sparsity) * data.weights).toLocaleString("en-US");
  const rows = {};
  for (const name of ["measured", "certified", "predicted", "recoverable", "limit", "upper"]) {
    const ends = span(found, name) ?? (name === "upper" && found.upper ? { ...found.upper, at: null } : null);
    rows[name] = ends
      ? [spoken(ends), ends.at !== null ? left(ends.at) : `${left(ends.high)} to ${left(ends.low)}`]
      : ["\u2013", "\u2013"];
  }
  if (found.limit && found.limit.resolved)
    rows.limit[0] = `${percent(found.limit.middle)}`;
  return rows;
}

function fillTable(found) {
  const rows = answerTexts(found);
  for (const [name, [share, kept]] of Object.entries(rows)) {
    const row = byId(`answer-${name}`);
    if (!row) continue;
    row.querySelector(".share").textContent = share;
    row.querySelector(".kept").textContent = kept;
    const ends = span(found, name) ?? found[name];
    row.dataset.low = ends ? ends.low : "";
    row.dataset.high = ends ? ends.high : "";
  }
  const notes = { measured: measuredNote(found), predicted: predictedNote(found), limit: limitNote(found), recoverable: onlyNote(data.recoverable, found.recoverable), upper: onlyNote(data.upper, found.upper) };
  for (const [name, words] of Object.entries(notes)) {
    const note = document.querySelector(`#answer-${name} .note`);
    if (note) note.textContent = words ? ` ${words}` : "";
  }
}

function measuredNote(found) {
  const next = found.measured && found.measured.next;
  return next ? `The next sparsity that was tried, ${percent(next)}, loses more.` : "";
}

function predictedNote(found) {
  if (!found.predicted) return "It needs a rise of the loss.";
  if (!found.checked) return "Its mask was not evaluated.";
  const times = `${number(found.checked.rise / found.checked.tolerance, 2)} times what is allowed`;
  return found.checked.holds ? `It held: its mask raises the loss by ${times}.` : `It failed: its mask raises the loss by ${times}.`;
}

function limitNote(found) {
  if (!found.limit) return "It needs a rise of the loss.";
  const ends = `${percent(found.limit.low)} to ${percent(found.limit.high)}`;
  return found.limit.resolved ? `The bracket is ${ends}.` : `Not resolved: the bracket of ${ends} is too wide for one number.`;
}

function onlyNote(known, shown) {
  return known && !shown ? `It was computed for a rise of the loss of ${number(known.tolerance)} only.` : "";
}

function meaning(found) {
  if (state.unit === "loss") return data.metric ? dropOf(found) : "";
  if (found.tolerance > 0) return `There, the training loss rises by ${number(found.tolerance)} (measured). Predicted and limit are for this rise.`;
  return "So far, pruning does not raise the training loss, so predicted and limit have nothing to say.";
}

function dropOf(found) {
  const { sparsity, accuracy } = data.measured;
  if (!accuracy || !found.measured) return "";
  const unit = data.metric.share ? 100 : 1, drop = unit * (accuracy[0] - interpolate(sparsity, accuracy, found.measured.sparsity));
  const words = `${number(Math.abs(drop), 2)}${data.metric.share ? " points" : ""}`;
  return `There, the ${data.metric.name} is ${words} ${drop >= 0 ? "lower" : "higher"} (measured).`;
}

function allowedWords() {
  return state.unit === "loss" ? `loss +${number(state.value)}` : `${dropWords(state.value)} of ${data.metric.name}`;
}

function dropWords(drop) {
  if (data.metric && !data.metric.share) return number(drop);
  const points = number(100 * drop, 6);
  return `${points} ${points === "1" ? "point" : "points"}`;
}

function show() {
  const found = answers(data, state.unit, state.value);
  byId("sentence").textContent = sentence(data, found);
  byId("allowed").textContent = allowedWords();
  byId("meaning").textContent = meaning(found);
  byId("slider").setAttribute("aria-valuetext", allowedWords());
  drawCurves(found);
  fillTable(found);
  drawSpectrum(found);
  drawMagnitudes(found);
  drawErrors(found);
  document.documentElement.dataset.tolerance = found.tolerance;
  return found;
}

let speaking = null;
function say(found) { // once the slider rests, for screen readers
  clearTimeout(speaking);
  speaking = setTimeout(() => { byId("said").textContent = described(found).replace("Curves against sparsity. ", ""); }, 400);
}

function setUnit(unit) {
  const stops = data.stops[unit], slider = byId("slider");
  state.unit = unit;
  if (unit !== data.start.unit) state.value = unit === "loss" ? data.tolerance : 0.01;
  else state.value = data.start.value;
  slider.max = stops.length - 1;
  slider.value = nearest(stops, state.value);
  state.value = stops[slider.value];
  const words = (value) => (unit === "loss" ? `+${number(value)}` : data.metric.share ? `${number(100 * value, 6)}` : number(value));
  byId("least").textContent = words(stops[0]);
  byId("most").textContent = words(stops[stops.length - 1]);
  byId("what").textContent = unit === "loss" ? "Allowed rise of the loss" : `Allowed drop of the ${data.metric.name}`;
}

function nearest(list, value) {
  return list.reduce((best, x, i) => (Math.abs(x - value) < Math.abs(list[best] - value) ? i : best), 0);
}

function start() {
  byId("control").hidden = false;
  if (!data.stops.drop) byId("units").hidden = true;
  else document.querySelector('input[value="drop"]').nextSibling.textContent = data.metric.share ? `points of ${data.metric.name}` : data.metric.name;
  document.querySelector(`input[name="unit"][value="${state.unit}"]`).checked = true;
  setUnit(state.unit);
  byId("slider").addEventListener("input", (event) => {
    state.value = data.stops[state.unit][event.target.value];
    say(show());
  });
  byId("units").addEventListener("change", (event) => { setUnit(event.target.value); say(show()); });
  drawLegend();
  drawLayers();
  show();
  let wide = document.body.clientWidth;
  new ResizeObserver(() => {
    if (document.body.clientWidth === wide) return;
    wide = document.body.clientWidth;
    drawLayers();
    show();
  }).observe(document.body);
}

start();
performance.mark("ready");
