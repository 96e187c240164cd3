// A metric by class or bin: the ticked encoders side by side.

let chosenPart = 0;
let chosenFor = null;

// The breakdown of a metric, of the metric that it is the mean of, or of the one that it is a part of.
function partOf(column, metric) {
  const fits = [(part) => part.metric === metric.id, (part) => `m${part.metric}` === metric.id, (part) => metric.id.startsWith(`${part.metric}_`)];
  return Math.max(0, ...fits.map((fit) => column.breakdowns.findIndex(fit)).filter((place) => place >= 0).slice(0, 1));
}

function drawBreakdown() {
  const column = chosenColumn();
  const place = find("#task-breakdown");
  if (!column.breakdowns.length) { put(place); return; }
  const metric = column.metrics[chosenMetric()];
  if (chosenFor !== metric) [chosenFor, chosenPart] = [metric, partOf(column, metric)];
  const names = column.breakdowns.map((part) => `${part.metric} by ${part.by}`);
  const select = h("select", {change: () => { chosenPart = Number(select.value); drawPart(); }});
  fillSelect(select, names, chosenPart);
  const body = h("div");
  put(place, h("h3", null, "Class by class, bin by bin"),
    h("div", {class: "controls"}, h("label", null, "Breakdown ", select)), body);

  function drawPart() {
    const part = column.breakdowns[chosenPart];
    const details = detailsOf(column);
    const visible = new Set(state.visible);
    const series = state.ticked.filter((encoder) => visible.has(encoder) && column.of.has(encoder)).flatMap((encoder) => {
      const values = details[column.of.get(encoder).place].breakdowns?.[chosenPart];
      return values ? [{encoder, values}] : [];
    });
    put(body, ...(series.length ? [keyOf(series.map((one) => one.encoder)), dots(body, column, part, series)]
      : [note("Tick an encoder in the table of results to see it here.")]));
  }
  drawPart();
}

function dots(place, column, part, found) {
  const places = part.keys.map((_, k) => k).filter((k) => found.some((one) => one.values[k] !== null));
  const keys = places.map((k) => part.keys[k]);
  const series = found.map((one) => ({...one, values: places.map((k) => one.values[k])}));
  const undefinedKeys = part.keys.filter((key) => !keys.includes(key));
  const width = widthOf(place);
  const left = Math.min(width * 0.36, 24 + 7.2 * Math.max(...keys.map((key) => Math.min(key.length, 26))));
  const each = Math.max(24, 9 * series.length + 10);
  const [top, bottom] = [8, 8 + each * keys.length];
  const all = series.flatMap((one) => one.values).filter((value) => value !== null);
  const heading = `${part.metric}${part.unit && part.unit !== "1" ? ` (${part.unit})` : ""} ${arrow(part.up)}`;
  if (!all.length) return note(`${heading}: not defined for the ticked encoders.`);
  const scale = scaleOf(all, left + 10, width - 20, {zero: true});
  const content = [axisX(scale, scale.ticks(width < 500 ? 4 : 8), top, bottom, (tick) => String(tick))];
  keys.forEach((key, k) => {
    const y = top + each * (k + 0.5);
    content.push(line(left, top + each * k, width - 10, top + each * k, "grid"),
      label(left - 6, y + 4, shorten(key, Math.floor((left - 10) / 7)), {"text-anchor": "end"}));
    series.forEach((one, i) => {
      const value = one.values[k];
      if (value === null) return;
      const at = y + 9 * (i - (series.length - 1) / 2);
      content.push(line(scale(0), at, scale(value), at, `whisker ${styleOf(one.encoder)}`), mark(one.encoder, scale(value), at, 0.85));
    });
  });
  content.push(label((left + width) / 2, bottom + 34, `${heading}${part.up === null ? "" : `, ${better(part.up)}`}`, {"text-anchor": "middle", class: "quiet"}));
  const table = makeTable(`${heading} by ${part.by}`, [part.by, ...series.map((one) => named(encoders[one.encoder].name))],
    part.keys.map((key, k) => [named(key), ...found.map((one) => number(one.values[k], part))]));
  return figure(`${part.metric} by ${part.by} on ${column.name}`,
    `${plural(keys.length, "value")} of ${part.by} for ${series.map((one) => encoders[one.encoder].name).join(", ")}; numbers are in the table below.`,
    width, bottom + 42, content, "Single classes and bins have no intervals: with few samples each, small differences mean little. A missing mark is undefined."
      + (undefinedKeys.length ? ` Not drawn, as the data at hand does not define it for these encoders: ${undefinedKeys.join(", ")}.` : ""), table);
}
