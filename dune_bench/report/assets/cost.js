// Accuracy against what it costs: the Pareto front is what nobody beats in both.

const COSTS = [
  {key: "parameters", name: "parameters", text: compact, what: "Parameters of the encoder"},
  {key: "flops", name: "FLOPs per image", text: compact, what: "Floating-point operations of one image, a multiply-add as two"},
  {key: "latency", name: "latency (ms per image)", text: (value) => String(Number(value.toPrecision(3))), what: "Median milliseconds per image while features were extracted"},
];

// Cells that no other beats: cheaper or equal, and better.  cells are sorted by cost.
function paretoFront(cells, cost, up) {
  const front = [];
  for (const cell of [...cells].sort((a, b) => a[cost] - b[cost] || (up ? b.value - a.value : a.value - b.value))) {
    const last = front[front.length - 1];
    if (!last || (up ? cell.value > last.value : cell.value < last.value)) front.push(cell);
  }
  return front;
}

function drawCost() {
  const place = find("#cost-body");
  const column = chosenColumn();
  const cost = COSTS[Number(find("#cost-axis").value)];
  find("#cost-task").value = state.task;
  const visible = new Set(state.visible);
  const measured = column.cells.filter((cell) => visible.has(cell.encoder) && cell.value !== null);
  const priced = measured.filter((cell) => cell[cost.key] !== null);
  const machine = fillMachines(cost, priced);
  const cells = machine === null ? priced : priced.filter((cell) => cell.machine === machine);
  const without = measured.filter((cell) => !cells.includes(cell)).map((cell) => encoders[cell.encoder].name);
  if (!column.primary || !cells.length) {
    put(place, note(`No visible encoder has both a value and a known cost (${cost.name}) on this task.`));
    return;
  }
  const front = paretoFront(cells, cost.key, column.primary.up);
  put(place,
    keyOf(state.ticked.filter((encoder) => visible.has(encoder) && column.of.has(encoder))),
    scatter(place, column, cost, cells, front),
    h("p", null, h("b", null, "On the front: "), front.map((cell, i) => [i ? ", " : "", named(encoders[cell.encoder].name)]),
      ". Nobody here is both better and cheaper, by the values; where intervals overlap, that may be chance."),
    without.length ? h("p", {class: "note"}, `Without this cost, or measured elsewhere: ${without.length > 8 ? `${without.slice(0, 8).join(", ")} and ${without.length - 8} more` : without.join(", ")}.`) : "",
    cost.key === "latency" ? note("Latency belongs to a machine, and is measured beside other work. Result files do not name the processor: compare only what you know was measured on the same one.") : "");
}

// Latencies of different machines share no chart.  Returns the chosen machine, null for other costs.
function fillMachines(cost, cells) {
  const found = [...new Set(cells.map((cell) => cell.machine))].filter((machine) => machine !== null);
  const select = find("#cost-machine");
  find("#cost-machine-label").hidden = cost.key !== "latency" || !found.length;
  if (cost.key !== "latency" || !found.length) return null;
  const count = (machine) => cells.filter((cell) => cell.machine === machine).length;
  found.sort((a, b) => count(b) - count(a) || a - b);
  const before = Number(select.dataset.machine);
  const chosen = found.includes(before) ? before : found[0];
  put(select, ...found.map((machine) => h("option", {value: machine, selected: machine === chosen}, `${board.machines[machine]} (${plural(count(machine), "result")})`)));
  return chosen;
}

function scatter(place, column, cost, cells, front) {
  const width = widthOf(place);
  const height = width < 500 ? 340 : 430;
  const [left, right, top, bottom] = [54, width - 16, 16, height - 46];
  const metric = column.primary;
  const positive = cells.map((cell) => cell[cost.key]).filter((value) => value > 0);
  const free = cells.some((cell) => cell[cost.key] <= 0);
  const from = free ? left + 46 : left + 8;
  const scale = positive.length ? scaleOf(positive, from, right - 12, {logarithmic: true}) : null;
  const x = (cell) => (cell[cost.key] > 0 ? scale(cell[cost.key]) : left + 20);
  const y = scaleOf(cells.flatMap((cell) => [cell.value, cell.low, cell.high]).filter((value) => value !== null), bottom - 6, top + 6);
  const content = [
    scale ? axisX(scale, scale.ticks(width < 500 ? 4 : 8), top, bottom, cost.text) : "",
    free ? [line(left + 20, top, left + 20, bottom, "grid"), label(left + 20, bottom + 16, "0", {"text-anchor": "middle", class: "quiet"})] : "",
    y.ticks(6).map((tick) => [line(left, y(tick), right, y(tick), "grid"), label(left - 6, y(tick) + 4, String(tick), {"text-anchor": "end", class: "quiet"})]),
    label((left + right) / 2, bottom + 36, `${cost.name}, ${scale ? "logarithmic, " : ""}less is better`, {"text-anchor": "middle", class: "quiet"}),
    label(left - 44, top - 4, `${metric.heading}`, {class: "quiet"}),
    svg("path", {class: "front", d: stairs(front, x, y, right)}),
  ];
  cells.forEach((cell) => content.push(cell.low === null ? "" : line(x(cell), y(cell.low), x(cell), y(cell.high), `whisker ${styleOf(cell.encoder)}`)));
  cells.forEach((cell) => content.push(svg("g", null, svg("title", null, pointText(column, cost, cell)), mark(cell.encoder, x(cell), y(cell.value)))));
  front.forEach((cell) => content.push(svg("circle", {class: "ring", cx: x(cell).toFixed(1), cy: y(cell.value).toFixed(1), r: 9})));
  const namedCells = cells.filter((cell) => placeOf(cell.encoder) >= 0 || front.includes(cell)).slice(0, 24);
  content.push(names(namedCells, x, y, left, right, top, bottom));
  const rows = cells.map((cell) => [named(encoders[cell.encoder].name), cost.text(cell[cost.key]), number(cell.value, metric), range(cell.low, cell.high, metric), front.includes(cell) ? "yes" : "no"]);
  return figure(`${metric.id} on ${column.name} against ${cost.name}`,
    `${plural(cells.length, "encoder")}; on the Pareto front: ${front.map((cell) => encoders[cell.encoder].name).join(", ")}.`, width, height, content,
    `${cost.what}. Ringed, on the dotted line: the Pareto front. Vertical lines are 95 % intervals of the metric.`,
    makeTable("Accuracy and cost", ["encoder", cost.name, metric.heading, "95 % interval", "on the front"], rows));
}

const pointText = (column, cost, cell) =>
  `${encoders[cell.encoder].name}: ${withUnit(number(cell.value, column.primary), column.primary)} ${range(cell.low, cell.high, column.primary)}, ${cost.name} ${cost.text(cell[cost.key])}`;

// Best value that can be had for so much: a staircase.
function stairs(front, x, y, right) {
  const steps = front.map((cell, i) => `${i ? `H${x(cell).toFixed(1)}V` : `M${x(cell).toFixed(1)} `}${y(cell.value).toFixed(1)}`);
  return `${steps.join("")}H${right}`;
}

// Names beside their marks, moved up or down so that they do not cover each other.
function names(cells, x, y, left, right, top, bottom) {
  const taken = [];
  return [...cells].sort((a, b) => y(a.value) - y(b.value)).map((cell) => {
    const text = shorten(encoders[cell.encoder].name, 30);
    const size = 6.6 * text.length;
    const onLeft = x(cell) + 14 + size > right;
    const start = Math.max(left, onLeft ? x(cell) - 14 - size : x(cell) + 14);
    const offsets = [4, -10, 18, -24, 32, -38, 46];
    const free = (at) => at > top && at < bottom && taken.every((box) => Math.abs(box.at - at) > 13 || box.end < start || box.start > start + size);
    const at = offsets.map((offset) => y(cell.value) + offset).find(free);
    if (at === undefined) return "";
    taken.push({at, start, end: start + size});
    return label(start, at, text, {class: "halo", textLength: null});
  });
}

function startCost() {
  fillSelect(find("#cost-task"), columns.map((column) => column.name), state.task);
  fillSelect(find("#cost-axis"), COSTS.map((cost) => cost.name), 0);
  find("#cost-task").addEventListener("change", (event) => {
    Object.assign(state, {task: Number(event.target.value), metric: null});
    find("#choose-task").value = state.task;
    fillTask();
    changed("task");
  });
  find("#cost-axis").addEventListener("change", drawCost);
  find("#cost-machine").addEventListener("change", (event) => {
    event.target.dataset.machine = event.target.value;
    drawCost();
  });
}
