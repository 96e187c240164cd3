// Elements, data, numbers: what every other part uses.  Text enters the page as text only, never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const find = (selector, root = document) => root.querySelector(selector);

function element(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...present(children));
  return made;
}

// Children may be nested lists; nothing, false and empty texts are left out.
const present = (children) => children.flat(Infinity).filter((child) => child || child === 0);
const put = (place, ...children) => place.replaceChildren(...present(children));

// An HTML element; functions among the attributes are listeners.
const h = (tag, attributes, ...children) => element(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => element(document.createElementNS(SVG, tag), attributes, children);
// A text that may end its line after a sign between its words.
const breakable = (text) => text.split(/(?<=[_@/])(?=\w)/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));
const named = (text) => h("bdi", null, breakable(text));

const readJson = (id) => JSON.parse(document.getElementById(id).textContent);
const board = readJson("board");
const encoders = board.encoders;
const columns = board.columns;
columns.forEach((column, index) => {
  column.index = index;
  column.primary = column.metrics.find((metric) => metric.primary) || null;
  column.cells = column.cells.map(([encoder, value, low, high, failed, overlap, parameters, flops, latency, machine]) =>
    ({encoder, value, low, high, failed, overlap, parameters, flops, latency, machine}));
  column.cells.forEach((cell, place) => { cell.place = place; });
  column.of = new Map(column.cells.map((cell) => [cell.encoder, cell]));
});

const detailsRead = new Map();
// Everything about the results of a column, in the order of its cells; parsed when first asked for.
function detailsOf(column) {
  if (!detailsRead.has(column.index)) detailsRead.set(column.index, readJson("details-" + column.index));
  return detailsRead.get(column.index);
}

// What the reader chose.  `visible` and `shown` follow from the filters; `ticked` are the encoders to compare.
// slots: which encoder has which colour and shape; those of `board.shown` have the same ones as in the plots.
const MOST_TICKED = 6;
const state = {task: 0, metric: null, ticked: [], slots: Array(MOST_TICKED).fill(null), visible: encoders.map((_, i) => i), shown: columns.map((_, i) => i)};
const listeners = [];
const onChange = (listener) => listeners.push(listener);
const changed = (what) => listeners.forEach((listener) => listener(what));

// A number as the Markdown and CSV reports round it.
function number(value, metric) {
  if (value === null || value === undefined) return "undefined";
  return metric.decimals === null ? String(Number(value.toPrecision(4))) : value.toFixed(metric.decimals);
}
const NO_SPREAD = "‡";
function range(low, high, metric) {
  if (low === null) return "";
  return low === high ? NO_SPREAD : `[${number(low, metric)}, ${number(high, metric)}]`;
}
const withUnit = (text, metric) => (metric.unit === "1" || metric.unit === "" ? text : `${text} ${metric.unit}`);
const arrow = (up) => (up === null ? "" : up ? "↑" : "↓");
const better = (up) => (up === null ? "" : up ? "higher is better" : "lower is better");
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Sorts numbers, best first if `best`; undefined and absent ones are last either way.
function byValue(values, up, best) {
  const sign = up === best ? -1 : 1;
  return (a, b) => {
    const [x, y] = [values(a), values(b)];
    const [noX, noY] = [x === null || x === undefined, y === null || y === undefined];
    if (noX || noY) return noX - noY;
    return sign * (x - y);
  };
}

const kilo = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]];
function compact(value) {
  for (const [size, suffix] of kilo) if (value >= size) return Number((value / size).toPrecision(3)) + suffix;
  return String(Number(value.toPrecision(3)));
}

function fillSelect(select, labels, chosen) {
  select.replaceChildren(...labels.map((label, value) => h("option", {value, selected: value === chosen}, label)));
}

// A description list of [name, text] pairs.
const factList = (pairs) => h("dl", {class: "facts"}, pairs.map(([name, text]) => [h("dt", null, name), h("dd", null, named(text))]));

// A table; the first cell of a row is its heading.  Items are text or elements.
function makeTable(caption, head, rows) {
  const cell = (content, i) => (i === 0 ? h("th", {scope: "row"}, content) : h("td", null, content));
  return h("div", {class: "scroll", role: "region", "aria-label": caption, tabindex: "0"},
    h("table", {class: "numbers"},
      h("caption", {class: "sr"}, caption),
      h("thead", null, h("tr", null, head.map((text) => h("th", {scope: "col"}, text)))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map(cell))))));
}
