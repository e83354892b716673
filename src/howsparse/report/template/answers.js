"use strict";
// The answers of one network for every tolerance, from the numbers of the page. No document here: node runs it too.
// A density is the share of weights that stay; a sparsity is 1 - density. A "drop" is of the metric, as a fraction.

const CUBIC = 4; // points of the interpolation in the logarithm of the scale

// Needed density at a scale, from a table at equal distances of log(scale).
function neededDensity(limit, table, scale) {
  const place = Math.min(Math.max((Math.log(scale) - limit.start) / limit.step, 0), table.length - 1);
  const first = Math.min(Math.max(Math.floor(place) - 1, 0), table.length - CUBIC);
  let sum = 0;
  for (let i = 0; i < CUBIC; i++) {
    let weight = 1;
    for (let j = 0; j < CUBIC; j++) if (j !== i) weight *= (place - first - j) / (i - j);
    sum += weight * table[first + i];
  }
  return Math.min(Math.max(sum, 0), 1);
}

// Squared norm of the removed weights, a cubic polynomial between knots with the exact slopes.
function squaredRadius(limit, sparsity) {
  const [at, value, slope] = limit.radius;
  const i = Math.min(Math.max(upper(at, sparsity) - 1, 0), at.length - 2);
  const width = at[i + 1] - at[i], t = (sparsity - at[i]) / width;
  if (width * limit.weights < 1.5) return value[i] + t * (value[i + 1] - value[i]); // neighbouring weights
  return (1 + 2 * t) * (1 - t) ** 2 * value[i] + t * (1 - t) ** 2 * width * slope[i]
    + t * t * (3 - 2 * t) * value[i + 1] + t * t * (t - 1) * width * slope[i + 1];
}

// First index whose value is above x, in an increasing list.
function upper(list, x) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] <= x) low = middle + 1; else high = middle;
  }
  return low;
}

// mu = 2 tolerance / R^2
function scaleAt(limit, sparsity, tolerance) {
  const radius2 = squaredRadius(limit, sparsity);
  return radius2 > 0 ? 2 * tolerance / radius2 : Infinity;
}

// The density p at which the needed density is p (Corollary 1): it falls as the scale rises, so bisection finds it.
function fixedPoint(limit, table, tolerance) {
  const excess = (density) => {
    const scale = scaleAt(limit, 1 - density, tolerance);
    return (isFinite(scale) ? neededDensity(limit, table, scale) : 0) - density;
  };
  let low = 0, high = 1;
  if (excess(0) <= 0) return 0;
  for (let step = 0; step < 50; step++) {
    const middle = (low + high) / 2;
    if (excess(middle) > 0) low = middle; else high = middle;
  }
  return (low + high) / 2;
}

// The bracket of the limit, as sparsities, and the half-widths of which it is the sum.
function bracket(limit, tolerance) {
  const ends = (name, at) => limit.tables[name].map((table) => 1 - fixedPoint(limit, table, at)).reverse();
  const half = ([low, high]) => (high - low) / 2, middle = ([low, high]) => (low + high) / 2;
  const proven = ends("proven", tolerance), rounded = ends("rounded", tolerance), outer = ends("outer", tolerance);
  let data = 0, factor = 1; // the factor takes a density from the sample to the population
  if (limit.data) {
    const shift = limit.data.shift, moved =
      middle(ends("proven", tolerance * (1 + limit.data.toleranceError))) - middle(proven);
    if (shift) {
      const at = (values) => interpolate(shift.at, values, Math.max(Math.log(tolerance), shift.at[0]));
      factor = Math.exp(at(shift.value));
      data = factor * (1 - middle(outer)) * Math.expm1(at(shift.error));
    } else {
      data = 2 * Math.abs(middle(ends("half", tolerance)) - middle(ends("alike", tolerance))) * limit.data.doublings;
    }
    data += factor * Math.abs(moved);
  }
  const low = Math.max(0, 1 - factor * (1 - outer[0]) - data), high = Math.min(1, 1 - factor * (1 - outer[1]) + data);
  return {
    low, high, data, middle: (low + high) / 2, resolved: high - low <= limit.resolvedWidth,
    quadrature: factor * half(proven), rounding: factor * Math.max(0, half(rounded) - half(proven)),
    probe: factor * Math.max(0, half(outer) - half(rounded)),
  };
}

// The largest sparsity whose predicted increase is at most the tolerance, with linear interpolation.
function largestWithin(curve, tolerance) {
  let last = -1;
  curve.increase.forEach((rise, i) => { if (rise <= tolerance) last = i; });
  last = Math.max(last, 0);
  if (last + 1 === curve.increase.length) return curve.sparsity[last];
  const part = Math.max(0, (tolerance - curve.increase[last]) / (curve.increase[last + 1] - curve.increase[last]));
  return curve.sparsity[last] + part * (curve.sparsity[last + 1] - curve.sparsity[last]);
}

// The largest evaluated sparsity that keeps the goal, and the next one that was evaluated.
function within(curve, unit, value) {
  const keeps = unit === "drop"
    ? (i) => curve.accuracy[i] >= curve.accuracy[0] - value - 1e-12
    : (i) => curve.loss[i] <= curve.loss[0] + value;
  let last = 0;
  curve.sparsity.forEach((_, i) => { if (keeps(i)) last = i; });
  return { sparsity: curve.sparsity[last], index: last, next: curve.sparsity[last + 1] ?? null };
}

function interpolate(at, values, x) {
  if (x >= at[at.length - 1]) return values[values.length - 1];
  const i = Math.max(upper(at, x) - 1, 0);
  return values[i] + (values[i + 1] - values[i]) * (x - at[i]) / (at[i + 1] - at[i]);
}

// The rise of the loss that belongs to a drop of the metric: that of the network at the measured sparsity.
function toleranceOfDrop(data, drop) {
  const sparsity = within(data.measured, "drop", drop).sparsity, curve = data.train ?? data.measured;
  return interpolate(curve.sparsity, curve.loss, sparsity) - curve.loss[0];
}

// All answers for what may be lost: a drop of the metric, or a rise of the loss.
function answers(data, unit, value) {
  const tolerance = unit === "drop" ? toleranceOfDrop(data, value) : value;
  const curve = unit === "drop" ? data.measured : data.train ?? data.measured;
  const positive = tolerance > 0;
  const same = (other) => Math.abs(tolerance - other) <= 1e-4 * other;
  const only = (answer) => answer && same(answer.tolerance) ? answer : null;
  const limit = positive ? bracket(data.limit, tolerance) : null;
  return {
    unit, value, tolerance, limit,
    measured: curve ? within(curve, unit, value) : null,
    predicted: positive ? largestWithin(data.predicted, tolerance) : null,
    checked: only(data.checked), recoverable: only(data.recoverable), upper: only(data.upper),
    certified: data.certificate,
    scale: limit ? scaleAt(data.limit, limit.middle, tolerance) : null,
  };
}

// A sparsity in per cent, with so many digits that the weights that stay can be told apart.
function percent(share) {
  const digits = share < 0.99 || share === 1 ? 1 : share < 0.999 ? 2 : 3;
  return (100 * share).toFixed(digits) + "\u00a0%";
}

function number(x, digits = 3) {
  const size = Math.abs(x);
  return size !== 0 && (size < 1e-4 || size >= 1e6) ? x.toExponential(digits - 1) : String(+x.toPrecision(digits));
}

// What may be lost, in words.
function goal(data, unit, value) {
  if (unit === "loss") return `the loss rises by at most ${number(value)}`;
  if (!data.metric.share) return `the ${data.metric.name} drops by at most ${number(value)}`;
  const points = number(100 * value, 6);
  return `the ${data.metric.name} drops by at most ${points} ${points === "1" ? "point" : "points"}`;
}

// The answer in one sentence.
function sentence(data, found) {
  const what = goal(data, found.unit, found.value);
  if (found.measured) {
    if (found.measured.sparsity === 0) return `No sparsity that was tried keeps this: ${what}.`;
    return `${percent(found.measured.sparsity)} of the weights can go while ${what}.`;
  }
  if (found.limit && found.limit.resolved)
    return `The pruning limit is ${percent(found.limit.middle)} of the weights, if ${what}.`;
  return `The pruning limit is between ${percent(found.limit.low)} and ${percent(found.limit.high)}, if ${what}.`;
}

if (typeof module !== "undefined") module.exports = { answers, bracket, goal, percent, sentence, squaredRadius };
