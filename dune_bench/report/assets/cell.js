// One result in full: every metric, how sure it is, its breakdowns, and where it comes from.

const dialog = find("#cell");

function bars(keys, values, how) {
  const known = values.filter((value) => value !== null);
  const most = Math.max(...known.map(Math.abs), how.unit === "%" ? 100 : 0) || 1;
  return keys.map((key, i) => [named(key), values[i] === null ? "undefined" : number(values[i], how),
    values[i] === null ? "" : svg("svg", {viewBox: "0 0 100 10", width: 120, height: 12, preserveAspectRatio: "none", "aria-hidden": "true"},
      svg("rect", {x: 0, y: 0, width: Math.max(0.5, (100 * Math.abs(values[i])) / most), height: 10, class: "plain"}))]);
}

function certainty(column, cell, values) {
  const [value, low, high, n, failed] = values;
  if (value === null) return "The data at hand does not define this metric for this result.";
  const groups = column.facts.find(([name]) => name === "Data");
  const parts = [low === null
    ? `No interval: there are too few ${column.groups} for one.`
    : low === high ? `${NO_SPREAD} No interval: the value is the same whichever ${column.groups} are drawn. That is not certainty.`
    : `95 % interval ${range(low, high, column.primary)}, from resampling whole ${column.groups}.`];
  parts.push(`Scored on ${column.scored || plural(n, "sample")}${failed ? `, ${failed} of them without an answer` : ""}.`);
  if (groups) parts.push(`Data: ${groups[1]}.`);
  if (cell.overlap) parts.push("† By its card, the encoder was trained on data of this set.");
  return parts.join(" ");
}

function metricRows(column, detail) {
  return column.metrics.flatMap((metric, i) => {
    const values = detail.metrics[i];
    if (!values) return [];
    const [value, low, high, n, failed] = values;
    return [[h("span", {title: metric.meaning}, breakable(metric.heading)), number(value, metric), range(low, high, metric),
      (column.scored || String(n)) + (failed ? ` (${failed} failed)` : "")]];
  });
}

function costFacts(cell) {
  const pairs = [];
  if (cell.parameters !== null) pairs.push(["Parameters", compact(cell.parameters)]);
  if (cell.flops !== null) pairs.push(["FLOPs per image", compact(cell.flops)]);
  if (cell.latency !== null) pairs.push(["Latency", `${Number(cell.latency.toPrecision(3))} ms per image (${board.machines[cell.machine]})`]);
  return pairs;
}

function provenance(column, cell, detail) {
  const spread = (object) => Object.entries(object).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
  const pairs = [
    ...encoders[cell.encoder].facts, ["View", detail.view], ...column.facts, ...board.origins[detail.origin],
    ["Started", detail.started], ["Result file", detail.file], ["Result key", detail.key],
  ];
  if (detail.samples) pairs.push(["Per-sample statistics", `sha256 ${detail.samples}`]);
  if (detail.seeds?.length) pairs.push(["Seeds", detail.seeds.join(", ")]);
  if (detail.upstream && Object.keys(detail.upstream).length) pairs.push(["Heads it builds on", spread(detail.upstream)]);
  if (detail.seconds && Object.keys(detail.seconds).length) pairs.push(["Seconds", spread(detail.seconds)]);
  if (detail.memory) pairs.push(["Peak memory", `${detail.memory} MB`]);
  return [...pairs, ...costFacts(cell)];
}

function openCell(columnIndex, encoder) {
  const column = columns[columnIndex];
  const cell = column.of.get(encoder);
  const detail = detailsOf(column)[cell.place];
  const primary = column.primary && detail.metrics[column.metrics.indexOf(column.primary)];
  const own = pictures.filter((picture) => picture.encoder === encoder && (picture.column === columnIndex || picture.column === null));
  put(dialog,
    h("div", {class: "bar"},
      h("h2", {id: "cell-title"}, named(encoders[encoder].name), " on ", named(column.name)),
      h("button", {type: "button", class: "close", click: () => dialog.close()}, "Close")),
    primary ? h("p", {class: "value"}, withUnit(number(primary[0], column.primary), column.primary), " ", h("small", null, range(primary[1], primary[2], column.primary))) : "",
    primary ? h("p", null, h("b", null, column.primary.heading), `: ${column.primary.meaning || "no description is known"}; ${better(column.primary.up)}.`) : "",
    primary ? h("p", {class: "note"}, certainty(column, cell, primary)) : "",
    h("h3", null, "All metrics"),
    makeTable("All metrics of this result", ["metric", "value", "95 % interval", "samples"], metricRows(column, detail)),
    column.breakdowns.map((part, i) => detail.breakdowns?.[i] && h("details", null,
      h("summary", null, `${part.metric} by ${part.by}`),
      makeTable(`${part.metric} by ${part.by}`, [part.by, `${part.metric} ${part.unit === "1" ? "" : part.unit} ${arrow(part.up)}`, ""], bars(part.keys, detail.breakdowns[i], part)))),
    own.length ? h("h3", null, "Pictures") : "",
    h("div", {class: "sheet"}, own.map(pictureOf)),
    h("h3", null, "Where it comes from"),
    factList(provenance(column, cell, detail)),
    detail.choices && Object.keys(detail.choices).length
      ? h("details", null, h("summary", null, "What the solver chose"), h("pre", null, JSON.stringify(detail.choices, null, 1))) : "",
  );
  dialog.showModal();
  dialog.scrollTop = 0;
}

// Embedded pictures: [{encoder, column, name, size, data}].
const pictures = readJson("pictures");
function pictureOf(picture) {
  const column = picture.column === null ? "features" : columns[picture.column].name;
  const text = `${encoders[picture.encoder].name}, ${column}, sample ${picture.name}`;
  const image = h("img", {src: picture.data, width: picture.size[0], height: picture.size[1], loading: "lazy", alt: `Picture of ${text}; what it shows is written in it`});
  const enlarge = h("button", {type: "button", class: "zoom", "aria-pressed": "false", click: () => {
    enlarge.setAttribute("aria-pressed", String(enlarge.parentElement.classList.toggle("large")));
  }}, image);
  return h("figure", null, enlarge, h("figcaption", null, named(text), ". Press the picture to see it in full size, press again to fit it."));
}

function startDialog() {
  // A press beside the dialog closes it, as Escape does.
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
