// One task in detail: what was measured, all encoders with intervals, all metrics, pictures.

const MOST_BARS = 40;
let showAll = false;
const chosenColumn = () => columns[state.task];
const chosenMetric = () => {
  const found = chosenColumn().metrics.findIndex((metric) => metric.id === state.metric);
  return found < 0 ? Math.max(0, chosenColumn().metrics.findIndex((metric) => metric.primary)) : found;
};

// Visible encoders of a column with their values of a metric, best first; undefined ones last.
function ranked(column, metricIndex) {
  const visible = new Set(state.visible);
  const details = detailsOf(column);
  const up = column.metrics[metricIndex].up;
  return column.cells.filter((cell) => visible.has(cell.encoder))
    .map((cell) => ({cell, encoder: cell.encoder, values: details[cell.place].metrics[metricIndex]}))
    .sort(byValue((row) => (row.values ? row.values[0] : null), up, true));
}

function drawAbout() {
  const column = chosenColumn();
  const metric = column.metrics[chosenMetric()];
  put(find("#task-about"),
    h("p", null, h("b", null, named(column.name)), ". ", column.question),
    h("p", null, h("b", null, metric.heading), `: ${metric.meaning || "no description is known"}; ${better(metric.up)}.`),
    h("details", null, h("summary", null, "Conditions: data, protocol, input, versions"), factList(column.facts)),
    column.metrics.length > 1 ? h("details", null, h("summary", null, "What every metric means"),
      factList(column.metrics.map((each) => [each.heading, each.meaning || "no description is known"]))) : "");
}

// Dots with whiskers, one line an encoder.
function forest(place, column, metric, list) {
  const width = widthOf(place);
  const narrow = width < 500;  // the names then stand above their lines, which would have no room beside them
  const left = narrow ? 0 : Math.min(width * 0.42, 30 + 7.2 * Math.max(...list.map((row) => Math.min(encoders[row.encoder].name.length, 34))));
  const right = width - (narrow ? 64 : 84);
  const [top, each] = [8, narrow ? 40 : 24];
  const bottom = top + each * list.length;
  const numbers = list.flatMap((row) => row.values.slice(0, 3)).filter((value) => value !== null);
  const scale = scaleOf(numbers, left + 10, right - 10);
  const content = [axisX(scale, scale.ticks(width < 500 ? 4 : 7), top, bottom, (tick) => String(tick))];
  list.forEach((row, i) => {
    const y = top + each * (i + (narrow ? 0.7 : 0.5));
    const [value, low, high] = row.values;
    const name = encoders[row.encoder].name;
    content.push(
      narrow ? label(2, y - 13, shorten(name, Math.floor(width / 7)), {class: "halo"})
        : label(left - 6, y + 4, shorten(name, Math.floor((left - 10) / 7)), {"text-anchor": "end"}),
      low === null ? "" : line(scale(low), y, scale(high), y, `whisker ${styleOf(row.encoder)}`),
      mark(row.encoder, scale(value), y),
      label(right + 6, y + 4, `${number(value, metric)}${low !== null && low === high ? ` ${NO_SPREAD}` : ""}`));
  });
  content.push(label((left + right) / 2, bottom + 34, `${metric.heading}, ${better(metric.up)}`, {"text-anchor": "middle", class: "quiet"}));
  const [first, last] = [list[0], list[list.length - 1]];
  const sentence = `${plural(list.length, "encoder")}, best first: from ${encoders[first.encoder].name} with ${withUnit(number(first.values[0], metric), metric)} `
    + `to ${encoders[last.encoder].name} with ${withUnit(number(last.values[0], metric), metric)}.`;
  return figure(`${metric.id} on ${column.name}`, sentence, width, bottom + 42, content,
    "Marks are values, lines 95 % intervals. Ticked encoders have a colour and a shape of their own.", null);
}

function drawTask() {
  const column = chosenColumn();
  const metricIndex = chosenMetric();
  const metric = column.metrics[metricIndex];
  const list = ranked(column, metricIndex);
  const defined = list.filter((row) => row.values && row.values[0] !== null);
  const place = find("#task-chart");
  const drawn = showAll ? defined : defined.slice(0, MOST_BARS);
  const more = defined.length > MOST_BARS && h("button", {type: "button", class: "action", click: () => { showAll = !showAll; drawTask(); }},
    showAll ? `Show the best ${MOST_BARS} only` : `Show all ${defined.length}`);
  put(place, drawn.length ? forest(place, column, metric, drawn) : note("No visible encoder has a value."), more || "");
  put(find("#task-table"), h("details", null,
    h("summary", null, `All metrics as a table (${plural(list.length, "encoder")})`), lazily(() => allMetrics(column, list))));
}

// Makes the content of a closed <details> when it is first opened.
function lazily(make) {
  const place = h("div");
  queueMicrotask(() => place.parentElement?.addEventListener("toggle", () => { if (!place.firstChild) place.append(make()); }, {once: true}));
  return place;
}

function allMetrics(column, list) {
  const details = detailsOf(column);
  const text = (values, metric) => (values ? [number(values[0], metric), " ", h("small", null, range(values[1], values[2], metric))] : "");
  return makeTable(`All metrics on ${column.name}`, ["encoder", ...column.metrics.map((metric) => metric.heading), "view"],
    list.map((row) => [named(encoders[row.encoder].name),
      ...column.metrics.map((metric, i) => text(details[row.cell.place].metrics[i], metric)), details[row.cell.place].view]));
}

function drawPictures() {
  const visible = new Set(state.visible);
  // The first picture is open to see; more of them are folded away.
  const group = (heading, column) => {
    const own = pictures.filter((picture) => visible.has(picture.encoder) && picture.column === column);
    if (!own.length) return null;
    const rest = own.length > 1 && h("details", null, h("summary", null, `${plural(own.length - 1, "more picture")}`),
      lazily(() => h("div", {class: "sheet"}, own.slice(1).map(pictureOf))));
    return [h("h3", null, heading), h("div", {class: "sheet"}, pictureOf(own[0])), rest];
  };
  put(find("#task-pictures"), group("Predictions on single samples", state.task),
    group("Features as colours, of no task", null));
}

function fillTask() {
  const column = chosenColumn();
  fillSelect(find("#choose-metric"), column.metrics.map((metric) => metric.heading), chosenMetric());
}

function redrawTask() {
  drawAbout();
  drawTask();
  drawBreakdown();
  drawPictures();
}

function startTask() {
  const select = find("#choose-task");
  fillSelect(select, columns.map((column) => column.name), state.task);
  select.addEventListener("change", () => {
    Object.assign(state, {task: Number(select.value), metric: null});
    showAll = false;
    fillTask();
    changed("task");
  });
  find("#choose-metric").addEventListener("change", (event) => {
    state.metric = chosenColumn().metrics[Number(event.target.value)].id;
    drawAbout();
    drawTask();
    drawBreakdown();
  });
  fillTask();
}
