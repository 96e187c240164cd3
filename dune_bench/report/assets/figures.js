// What the charts share: scales, marks by shape and colour, keys, a table beside every picture.

// Ticks at round numbers; for a logarithmic axis, at powers of ten and their 2 and 5 fold.
function ticksOf(low, high, count, logarithmic) {
  if (logarithmic) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const factor of [1, 2, 5]) ticks.push(factor * 10 ** power);
    }
    const inside = ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
    return inside.length > count ? inside.filter((tick) => Math.abs(Math.log10(tick) % 1) < 1e-9) : inside;
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].map((factor) => factor * power).find((found) => found >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / size - 1e-9); i * size <= high + size * 1e-9; i += 1) ticks.push(Number((i * size).toPrecision(12)));
  return ticks;
}

// value -> pixel.  values: numbers that must be inside.
function scaleOf(values, from, to, {logarithmic = false, margin = 0.05, zero = false} = {}) {
  const on = logarithmic ? Math.log10 : (x) => x;
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  let [a, b] = [on(low), on(high)];
  if (a === b) [a, b] = [a - (Math.abs(a) * 0.1 || 0.5), b + (Math.abs(b) * 0.1 || 0.5)];
  const pad = (b - a) * margin;
  if (!(zero && low === 0)) a -= pad;
  if (!(zero && high === 0)) b += pad;
  const scale = (value) => from + ((on(value) - a) / (b - a)) * (to - from);
  const back = logarithmic ? (x) => 10 ** x : (x) => x;
  scale.ticks = (count) => ticksOf(back(a), back(b), count, logarithmic);
  return scale;
}

const SHAPES = [
  "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z", "M-4.5 -4.5h9v9h-9z", "M0 -5.5L5.5 4.5H-5.5z",
  "M0 -6L6 0L0 6L-6 0z", "M-4.5 -4.5L4.5 4.5M-4.5 4.5L4.5 -4.5", "M0 -6V6M-6 0H6",
];
const DASHES = [null, "8 4", "2 3", "10 3 2 3", "5 2", "12 4"];
// Style of a ticked encoder: colour, shape and dashes; of others: grey.
const placeOf = (encoder) => state.slots.indexOf(encoder);
const styleOf = (encoder) => (placeOf(encoder) < 0 ? "plain" : "s" + placeOf(encoder));
const mark = (encoder, x, y, size = 1) => svg("path", {
  class: `mark ${styleOf(encoder)}`, d: SHAPES[Math.max(placeOf(encoder), 0)],
  transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${placeOf(encoder) < 0 ? size * 0.7 : size})`,
});
const label = (x, y, text, attributes) => svg("text", {x: x.toFixed(1), y: y.toFixed(1), ...attributes}, text);
const line = (x1, y1, x2, y2, kind) => svg("line", {x1: x1.toFixed(1), y1: y1.toFixed(1), x2: x2.toFixed(1), y2: y2.toFixed(1), class: kind});
// At most so many characters; a brand such as [random weights] outlives the name that it stands behind.
function shorten(full, length) {
  if (full.length <= length) return full;
  const text = full.replace(" [random weights]", " [random]");
  const start = text.search(/ [[(]/);
  const brand = start >= 0 && text.length - start <= length - 4 ? text.slice(start) : "";
  return text.length <= length ? text : text.slice(0, length - 1 - brand.length) + "…" + brand;
}

// Marks and names of the ticked encoders.
const keyOf = (chosen) => h("ul", {class: "key", "aria-label": "Encoders in the chart"}, chosen.map((encoder) => h("li", null,
  svg("svg", {viewBox: "0 0 34 16", "aria-hidden": "true"},
    svg("line", {x1: 1, y1: 8, x2: 33, y2: 8, class: `line ${styleOf(encoder)}`, "stroke-dasharray": DASHES[Math.max(placeOf(encoder), 0)]}),
    mark(encoder, 17, 8)),
  named(encoders[encoder].name))));

// A picture with its text: a title, a sentence on what it shows, and the same as a table.
let figureCount = 0;
function figure(title, description, width, height, content, caption, table) {
  figureCount += 1;
  const [titleId, textId] = [`figure-${figureCount}`, `figure-text-${figureCount}`];
  return h("figure", null,
    svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": `${titleId} ${textId}`},
      svg("title", {id: titleId}, title), svg("desc", {id: textId}, description), content),
    h("figcaption", null, caption),
    table && h("details", null, h("summary", null, "The chart as a table"), table));
}

// Pixels that a chart may be wide.
const widthOf = (place) => Math.max(300, Math.min(1150, Math.round(place.getBoundingClientRect().width) || 800));
const note = (text) => h("p", {class: "note"}, text);

// Grid and numbers of a horizontal axis.
function axisX(scale, ticks, top, bottom, text) {
  return [
    ticks.map((tick) => [line(scale(tick), top, scale(tick), bottom, "grid"),
      label(scale(tick), bottom + 16, text(tick), {"text-anchor": "middle", class: "quiet"})]),
  ];
}
