// A metric by class or bin: the ticked encoders side by side.

let chosenPart = 0;

function drawBreakdown() {
  const column = chosenColumn();
  const place = find("#task-breakdown");
  if (!column.breakdowns.length) { put(place); return; }
  chosenPart = Math.min(chosenPart, column.breakdowns.length - 1);
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

function dots(place, column, part, series) {
  const width = widthOf(place);
  const left = Math.min(width * 0.36, 24 + 7.2 * Math.max(...part.keys.map((key) => Math.min(key.length, 26))));
  const each = Math.max(24, 9 * series.length + 10);
  const [top, bottom] = [8, 8 + each * part.keys.length];
  const all = series.flatMap((one) => one.values).filter((value) => value !== null);
  const heading = `${part.metric}${part.unit && part.unit !== "1" ? ` (${part.unit})` : ""} ${arrow(part.up)}`;
  if (!all.length) return note(`${heading}: not defined for the ticked encoders.`);
  const scale = scaleOf(part.unit === "%" ? [...all, 0, 100] : all, left + 10, width - 20, {zero: true});
  const content = [axisX(scale, scale.ticks(width < 500 ? 4 : 8), top, bottom, (tick) => String(tick))];
  part.keys.forEach((key, k) => {
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
    part.keys.map((key, k) => [named(key), ...series.map((one) => number(one.values[k], part))]));
  return figure(`${part.metric} by ${part.by} on ${column.name}`,
    `${plural(part.keys.length, "value")} of ${part.by} for ${series.map((one) => encoders[one.encoder].name).join(", ")}; numbers are in the table below.`,
    width, bottom + 42, content, "Single classes and bins have no intervals: with few samples each, small differences mean little. A missing mark is undefined.", table);
}
