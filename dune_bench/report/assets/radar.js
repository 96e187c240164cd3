// The ticked encoders over all tasks that the filters show.  Each axis runs from the worst to the best value
// of the visible encoders, so that shapes compare encoders, not tasks.

const MOST_AXES = 12;

function radarAxes() {
  const visible = new Set(state.visible);
  return state.shown.flatMap((index) => {
    const column = columns[index];
    const values = column.cells.filter((cell) => visible.has(cell.encoder) && cell.value !== null).map((cell) => cell.value);
    if (!column.primary || values.length < 2) return [];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (low === high) return [];
    const [worst, best] = column.primary.up ? [low, high] : [high, low];
    return [{column, worst, best, share: (value) => (value - worst) / (best - worst)}];
  });
}

function drawRadar() {
  const place = find("#radar-body");
  const visible = new Set(state.visible);
  const chosen = state.ticked.filter((encoder) => visible.has(encoder));
  const all = radarAxes();
  const axes = all.slice(0, MOST_AXES);
  if (axes.length < 3) {
    put(place, note(`A radar needs three tasks on which encoders differ; here: ${axes.length || "none"}. The table of results has all numbers.`));
    return;
  }
  if (!chosen.length) { put(place, note("Tick an encoder in the table of results to see it here.")); return; }
  const width = Math.min(widthOf(place), 860);
  const narrow = width < 560;
  const height = narrow ? width * 0.95 : 540;
  const radius = narrow ? width * 0.27 : 190;
  const [cx, cy] = [width / 2, height / 2];
  const at = (i, share) => {
    const angle = (2 * Math.PI * i) / axes.length - Math.PI / 2;
    const r = radius * (0.12 + 0.88 * share);  // worst is near the middle, not in it, where shapes would meet
    return [cx + r * Math.cos(angle), cy + r * Math.sin(angle)];
  };
  const content = [];
  for (const share of [0, 0.5, 1]) {
    content.push(svg("polygon", {points: axes.map((_, i) => at(i, share).map((v) => v.toFixed(1)).join()).join(" "), class: "grid", fill: "none"}));
  }
  axes.forEach((axis, i) => content.push(axisLabels(axis, i, at, cx, narrow)));
  chosen.forEach((encoder) => content.push(outline(axes, encoder, at)));
  const cell = (axis, encoder) => axis.column.of.get(encoder);
  const table = makeTable("Radar as a table", ["task", "worst here", "best here", ...chosen.map((encoder) => named(encoders[encoder].name))],
    axes.map((axis) => [named(`${axis.column.name}, ${axis.column.primary.heading}`), number(axis.worst, axis.column.primary), number(axis.best, axis.column.primary),
      ...chosen.map((encoder) => (cell(axis, encoder) ? number(cell(axis, encoder).value, axis.column.primary) : "not measured"))]));
  const left = all.length > axes.length ? ` Only the first ${MOST_AXES} of ${all.length} tasks are drawn: filter by task.` : "";
  put(place, keyOf(chosen), figure("Radar over tasks",
    `${chosen.map((encoder) => encoders[encoder].name).join(", ")} on ${plural(axes.length, "task")}; numbers are in the table below.`,
    width, height, content,
    "Outside is better on every axis. An axis runs from the worst to the best value of the encoders in the table, both written beside it: "
    + `lengths do not compare between axes, and a long axis may be a small difference. No mark: not measured.${left}`, table));
}

function axisLabels(axis, i, at, cx, narrow) {
  const [x, y] = at(i, 1);
  const [wx, wy] = at(i, 0);
  const [tx, ty] = at(i, narrow ? 1.16 : 1.12);
  const anchor = Math.abs(tx - cx) < 12 ? "middle" : tx > cx ? "start" : "end";
  const metric = axis.column.primary;
  const [probe, dataset] = axis.column.name.split("/");
  const above = ty < y - 4 ? -26 : 0;
  const ends = `${number(axis.worst, metric)}→${number(axis.best, metric)}`;
  const texts = narrow ? [probe, metric.id, ends] : [probe, dataset || "", `${metric.id} ${ends}`];
  const room = anchor === "middle" ? 2 * cx : anchor === "start" ? 2 * cx - tx : tx;
  return [line(wx, wy, x, y, "grid"),
    texts.map((text, k) => label(tx, ty + above + 14 * k, shorten(text, Math.floor(room / 7.4)), {"text-anchor": anchor, class: k ? "quiet" : ""}))];
}

// An outline; where an axis is missing it is left open.
function outline(axes, encoder, at) {
  const points = axes.map((axis, i) => {
    const value = axis.column.of.get(encoder)?.value;
    return value === null || value === undefined ? null : at(i, axis.share(value));
  });
  const dashes = DASHES[placeOf(encoder)];
  const whole = points.every(Boolean);
  const edges = points.map((point, i) => [point, points[(i + 1) % points.length]]).filter(([a, b]) => a && b);
  const path = whole ? `M${points.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L")}Z`
    : edges.map(([a, b]) => `M${a.map((v) => v.toFixed(1)).join(" ")}L${b.map((v) => v.toFixed(1)).join(" ")}`).join("");
  return [whole ? svg("path", {d: path, class: `area ${styleOf(encoder)}`}) : "",
    svg("path", {d: path, class: `line ${styleOf(encoder)}`, "stroke-dasharray": dashes, fill: "none"}),
    points.map((point) => point && mark(encoder, point[0], point[1], 0.9))];
}
