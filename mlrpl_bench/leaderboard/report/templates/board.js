/* The figures of a leaderboard. */
function board(data) {
const nothing = {training: {}, precision: {}};
/* What belongs to one row: on the page itself, or on a site in the row's file. */
function withRow(row, then) {
  if (!data.files) then({training: data.training[row] || {}, precision: data.precision[row] || {}});
  else if (data.files[row]) load(data.files[row], found => then(found || nothing));
  else then(nothing);
}

// Which methods ---------------------------------------------------------------------------------------------------

const slots = new Map();
function choose(row) {
  let slot = 0;
  while ([...slots.values()].includes(slot)) slot++;
  slots.set(row, slot);
}
data.chosen.forEach(choose);
const inOrder = () => data.rows.filter(row => slots.has(row));
function option(select, value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  select.append(element);
}
function showChoices() {
  by("picked").textContent = `(${slots.size} of ${data.rows.length})`;
  for (const label of by("choices").children) {
    const row = label.firstChild.value, old = label.querySelector("svg");
    if (old) old.remove();
    if (slots.has(row)) label.firstChild.after(sample(slots.get(row)));
  }
}
for (const row of data.rows) {
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox";
  box.value = row;
  box.checked = slots.has(row);
  box.addEventListener("change", () => {
    if (box.checked) choose(row); else slots.delete(row);
    showChoices();
    drawCurves();
  });
  label.append(box, row);
  by("choices").append(label);
}

// The figures -----------------------------------------------------------------------------------------------------

const ratioTicks = data.ratios.map(ratio => [+ratio, percent(+ratio, data.complete)]);
for (const metric of Object.keys(data.metrics)) option(by("metric"), metric, metric);
function drawCurves() {
  const metric = by("metric").value, bands = by("bands").checked;
  by("named-metric").textContent = metric;
  const references = data.lines.filter(line => data.metrics[metric][line])
    .map(line => ({name: line, value: data.metrics[metric][line][0][1]}));
  const series = of => inOrder().filter(row => of[row]).map(row => ({slot: slots.get(row), name: row, points: of[row]}));
  const common = {xTicks: ratioTicks, xText: "known labels", bands, height: 360};
  lines(by("chart-metric"), {...common, label: `${metric} by known ratio; the leaderboard has the numbers`, series: series(data.metrics[metric]), references});
  lines(by("chart-recovery"), {...common, label: "Recovery by known ratio; a table further down has the numbers", series: series(data.recovery)});
  legend(by("legend-curves"), [...inOrder().map(row => [slots.get(row), row]), ...references.map(of => [null, of.name])]);
}

function drawTraining() {
  const row = by("trained").value;
  withRow(row, ({training}) => {
    if (by("trained").value === row) trainingPanels(by("panels"), by("legend-training"), training, data.complete);
  });
}

function drawBars() {
  const row = by("bars-row").value, other = by("bars-other").value;
  withRow(row, own => withRow(other, others => {
    if (by("bars-row").value === row && by("bars-other").value === other) bars(row, other, own.precision, others.precision);
  }));
}
function bars(row, other, ofRow, ofOther) {
  const ratio = by("bars-ratio").value, host = by("chart-bars");
  const own = ofRow[ratio], others = ofOther[ratio], names = data.categories;
  const unnamed = "not drawn: the data set, which names its categories, was not there when this page was made";
  by("bars-row").closest("p").hidden = !names.length;
  if (!own) { host.textContent = names.length ? "nothing to draw" : unnamed; by("legend-bars").replaceChildren(); return; }
  const order = names.map((_, k) => k).sort((a, b) => (own[b] ?? -1) - (own[a] ?? -1) || a - b);
  const width = Math.max(240, host.clientWidth), step = 22, top = 4;
  const longest = Math.max(...names.map(name => name.length));
  const left = Math.min(12 + 7 * longest, width * .42), right = 44, height = top + step * names.length + 24;
  const letters = Math.floor((left - 10) / 6.6), X = value => left + value / 100 * (width - left - right);
  const root = svg("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `Average precision by category of ${row}; a table below has the numbers`});
  for (const tick of [0, 25, 50, 75, 100]) root.append(
    svg("line", {x1: X(tick), x2: X(tick), y1: top, y2: height - 22, class: tick ? "axis" : "axis base"}),
    svg("text", {x: X(tick), y: height - 6, "text-anchor": "middle"}, String(tick)));
  order.forEach((k, place) => {
    const y = top + step * place, value = own[k], name = names[k];
    root.append(svg("text", {x: left - 8, y: y + 15, "text-anchor": "end", class: "name"}, name.length > letters ? `${name.slice(0, letters - 1)}…` : name, svg("title", {}, name)));
    if (value === null) { root.append(svg("text", {x: left + 6, y: y + 15}, "no positives")); return; }
    root.append(svg("rect", {x: left, y: y + 4, width: Math.max(0, X(value) - left), height: step - 8, style: "fill:var(--s0);opacity:.75"}, svg("title", {}, `${name}, ${row}: ${value}`)));
    if (others && others[k] !== null && other !== row) {
      const mark = marker(1, X(others[k]), y + step / 2, 4.4);
      mark.style.stroke = "var(--ground)";
      mark.append(svg("title", {}, `${name}, ${other}: ${others[k]}`));
      root.append(mark);
    }
    root.append(svg("text", {x: width, y: y + 15, "text-anchor": "end"}, value.toFixed(1)));
  });
  host.replaceChildren(root);
  const block = svg("svg", {width: 22, height: 12, "aria-hidden": "true"}, svg("rect", {width: 22, height: 12, style: "fill:var(--s0);opacity:.75"}));
  const first = document.createElement("span"), second = document.createElement("span");
  first.append(block, row);
  second.append(svg("svg", {width: 12, height: 12, "aria-hidden": "true"}, marker(1, 6, 6, 4.4)), other);
  by("legend-bars").replaceChildren(...(others && other !== row ? [first, second] : [first]));
}

for (const row of data.trained) option(by("trained"), row, row);
for (const row of data.barred) { option(by("bars-row"), row, row); option(by("bars-other"), row, row); }
for (const ratio of [...(data.ratios.length > 1 ? data.ratios : []), data.average]) option(by("bars-ratio"), ratio, isNaN(ratio) ? ratio : percent(ratio, data.complete));
if (data.averaged) by("bars-ratio").value = data.average;
if (data.compared !== null) by("bars-other").value = data.compared;
if (data.telling !== null) by("trained").value = data.telling;
for (const id of ["metric", "bands"]) by(id).addEventListener("change", drawCurves);
by("trained").addEventListener("change", drawTraining);
for (const id of ["bars-row", "bars-other", "bars-ratio"]) by(id).addEventListener("change", drawBars);
showChoices();
drawings.push(drawCurves, drawTraining, drawBars);
for (const draw of drawings) draw();
fit();
}
if (by("data")) board(JSON.parse(by("data").textContent));
