// Starts the page, and draws again what a choice or a new width changes.

const THEMES = ["automatic", "light", "dark"];

function startTheme() {
  const button = find("#theme");
  let theme = 0;
  button.addEventListener("click", () => {
    theme = (theme + 1) % THEMES.length;
    if (theme) document.documentElement.dataset.theme = THEMES[theme];
    else delete document.documentElement.dataset.theme;
    button.textContent = `Theme: ${THEMES[theme]}`;
  });
}

function drawCharts() {
  redrawTask();
  drawRadar();
  drawCost();
}

function start() {
  document.documentElement.classList.add("scripted");
  if (window.matchMedia("(max-width: 40rem)").matches) find("#signs").open = false;  // a screen and a half there
  startTheme();
  startDialog();
  startOverview();
  if (!columns.length) {
    for (const id of ["#task", "#radar", "#cost"]) find(id).hidden = true;
    filterTable();
    return;
  }
  startTask();
  startCost();
  onChange((what) => {
    if (what === "task") { find("#choose-task").value = state.task; redrawTask(); drawCost(); }
    else if (what !== "order") drawCharts();
  });
  filterTable();
  let width = window.innerWidth;
  let waiting = null;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;  // phones resize in height as they scroll
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => { sayWider(); drawCharts(); }, 120);
  });
}

start();
