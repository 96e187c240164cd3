// The table of all results: sort, filter, tick, move with the arrow keys, open a cell.

const results = find("#results");
const body = results.tBodies[0];
const heads = [...results.tHead.rows[0].cells];
const rows = [...body.rows];  // in the order of `encoders`
const boxes = rows.map((row) => find("input", row));
const status = find("#status");
const sorted = {column: -1, best: true};
const columnName = (index) => (index < 0 ? "encoder" : columns[index].name);

// column: index, -1 for the encoders' names.
function sortRows(column, best) {
  Object.assign(sorted, {column, best});
  const order = rows.map((_, i) => i);
  const names = (a, b) => (best ? a - b : b - a);  // `encoders` is in order of names
  const up = column < 0 || !columns[column].primary || columns[column].primary.up;
  const value = (i) => columns[column].of.get(i)?.value;
  const compare = column < 0 ? names : byValue(value, up, best);
  order.sort((a, b) => compare(a, b) || a - b);
  body.append(...order.map((i) => rows[i]));
  heads.forEach((head, i) => head.setAttribute("aria-sort",
    i - 1 !== column ? "none" : (column < 0 ? best : up !== best) ? "ascending" : "descending"));
  state.order = order;
}

function say(text) {
  const counts = `${state.visible.length} of ${plural(encoders.length, "encoder")}, `
    + `${state.shown.length} of ${plural(columns.length, "column")}.`;
  status.textContent = `${counts} ${text}`;
}

function sortedText() {
  if (sorted.column < 0) return `Sorted by name${sorted.best ? "" : ", backwards"}.`;
  return `Sorted by ${columnName(sorted.column)}, ${sorted.best ? "best" : "worst"} first.`;
}

const words = (id) => find(id).value.toLowerCase().split(/\s+/).filter(Boolean);
const hasAll = (text, parts) => parts.every((part) => text.toLowerCase().includes(part));
const sheet = document.styleSheets[0];
let columnRule = null;

// Says that the table goes on beyond its right edge, where it does.
function sayWider() {
  const box = results.parentElement;
  const hint = find("#wider");
  hint.hidden = box.scrollWidth <= box.clientWidth + 1;
  hint.textContent = `${plural(state.shown.length, "column")}: scroll the table sideways to see them all →`;
}

function filterTable() {
  const wanted = words("#find-encoder");
  const tasks = words("#find-column");
  const hideRandom = find("#hide-random").checked;
  const hideChanged = find("#hide-changed").checked;
  state.visible = encoders.flatMap((encoder, i) =>
    hasAll(encoder.name, wanted) && !(hideRandom && encoder.random) ? [i] : []);
  state.shown = columns.flatMap((column, i) =>
    hasAll(column.name, tasks) && !(hideChanged && column.changed) ? [i] : []);
  const visible = new Set(state.visible);
  const shown = new Set(state.shown);
  rows.forEach((row, i) => { row.hidden = !visible.has(i); });
  // One rule hides whole columns; a class on each cell would be slow.
  const hidden = columns.flatMap((_, i) => (shown.has(i) ? [] : [`#results tr > :nth-child(${i + 2})`]));
  if (columnRule !== null) sheet.deleteRule(columnRule);
  columnRule = hidden.length ? sheet.insertRule(`${hidden.join()} { display: none; }`, sheet.cssRules.length) : null;
  say(visible.size ? sortedText() : "No encoder fits: change the filters.");
  sayWider();
  moveStop(firstStop());
  changed("filter");
}

// A colour stays with its encoder for as long as it is ticked.
function giveSlots() {
  state.slots = state.slots.map((encoder) => (state.ticked.includes(encoder) ? encoder : null));
  for (const encoder of state.ticked.filter((one) => !state.slots.includes(one))) {
    const own = board.shown.indexOf(encoder);
    state.slots[own >= 0 && state.slots[own] === null ? own : state.slots.indexOf(null)] = encoder;
  }
}

function tick(encoder, on) {
  state.ticked = state.ticked.filter((other) => other !== encoder);
  if (on) state.ticked.push(encoder);
  const dropped = state.ticked.length > MOST_TICKED ? state.ticked.shift() : null;
  giveSlots();
  boxes.forEach((box, i) => { box.checked = state.ticked.includes(i); });
  say(dropped === null ? "" : `At most ${MOST_TICKED} are compared: ${encoders[dropped].name} is no longer ticked.`);
  changed("ticked");
}

// The table is one tab stop; arrow keys move inside it (the grid pattern).
const target = (cell) => find("button, input", cell) || cell;
const firstStop = () => target(heads[0]);
let stop = null;
function moveStop(next) {
  if (stop) stop.tabIndex = -1;
  stop = next;
  stop.tabIndex = 0;
}

function step(cell, key, control) {
  const lines = [results.tHead.rows[0], ...[...body.rows].filter((row) => !row.hidden)];
  const places = [0, ...state.shown.map((i) => i + 1)];
  let line = lines.indexOf(cell.parentElement);
  let place = places.indexOf(cell.cellIndex);
  if (key === "ArrowUp") line -= 1;
  else if (key === "ArrowDown") line += 1;
  else if (key === "ArrowLeft") place -= 1;
  else if (key === "ArrowRight") place += 1;
  else if (key === "Home") { place = 0; if (control) line = 0; }
  else if (key === "End") { place = places.length - 1; if (control) line = lines.length - 1; }
  else if (key === "PageUp") line = Math.max(0, line - 10);
  else if (key === "PageDown") line = Math.min(lines.length - 1, line + 10);
  else return null;
  const clamp = (value, length) => Math.min(Math.max(value, 0), length - 1);
  return lines[clamp(line, lines.length)].cells[places[clamp(place, places.length)]];
}

function startOverview() {
  results.setAttribute("role", "grid");
  boxes.forEach((box, i) => box.addEventListener("change", () => tick(i, box.checked)));
  results.addEventListener("keydown", (event) => {
    if (event.altKey || event.metaKey) return;
    const cell = event.target.closest("th, td");
    const next = cell && step(cell, event.key, event.ctrlKey);
    if (!next) return;
    event.preventDefault();
    moveStop(target(next));
    stop.focus();
  });
  results.addEventListener("focusin", (event) => {
    const cell = event.target.closest("th, td");
    if (cell && target(cell) !== stop) moveStop(target(cell));
  });
  results.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const cell = button.closest("th, td");
    const column = cell.cellIndex - 1;
    if (cell.parentElement.parentElement === results.tHead) {
      sortRows(column, sorted.column === column ? !sorted.best : true);
      say(sortedText());
      changed("order");
    } else {
      openCell(column, rows.indexOf(cell.parentElement));
    }
  });
  for (const id of ["#find-encoder", "#find-column", "#hide-random", "#hide-changed"]) {
    find(id).addEventListener("input", filterTable);
  }
  find("#hide-random").parentElement.hidden = !encoders.some((encoder) => encoder.random);
  find("#hide-changed").parentElement.hidden = !columns.some((column) => column.changed);
  sortRows(columns.length ? 0 : -1, true);
  state.ticked = [...board.shown];
  giveSlots();
  boxes.forEach((box, i) => { box.checked = state.ticked.includes(i); });
}
