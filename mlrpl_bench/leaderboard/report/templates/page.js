(() => {
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const by = id => document.getElementById(id);
const DASHES = ["", "7 4", "2 3", "9 3 2 3", "12 4", "4 2", "1 4", "8 2 2 2 2 2"];
const STYLES = 8;
const words = name => name.replace(/^(scalar|loss|pseudo)\./, "").replace(/[_.]/g, " ");
const percent = ratio => +ratio === 1 && !data.complete ? "all given" : `${+(100 * ratio).toPrecision(6)} %`;

// Tables ----------------------------------------------------------------------------------------------------------

const collator = new Intl.Collator("en", {numeric: true});
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const before = head.getAttribute("aria-sort");
    const isText = column === 0 || ![...body.rows].some(row => row.cells[column].dataset.value !== undefined);
    const order = before === null ? (isText ? "ascending" : "descending")
      : before === "ascending" ? "descending" : "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map(row => ({row, cell: row.cells[column]}));
    if (isText) rows.sort((a, b) => sign * collator.compare(a.cell.textContent, b.cell.textContent));
    else rows.sort((a, b) => {  // holes stay at the end
      const [x, y] = [a, b].map(item => item.cell.dataset.value);
      return x === undefined || y === undefined ? (x === undefined) - (y === undefined) : sign * (x - y);
    });
    body.append(...rows.map(item => item.row));
  }));
}
for (const input of document.querySelectorAll("[data-filter]")) {
  const body = by(input.dataset.filter).tBodies[0], count = by(input.id.replace("filter-", "count-"));
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const label = row.cells[0].textContent.toLowerCase();
      row.hidden = wanted.length > 0 && !wanted.some(word => label.includes(word));
      shown += !row.hidden;
    }
    count.textContent = wanted.length ? `${shown} of ${body.rows.length} rows` : "";
  });
}
for (const element of document.querySelectorAll(".tools[hidden], .drawn[hidden]")) element.hidden = false;

// Links into folded details ---------------------------------------------------------------------------------------

function reveal() {
  const target = location.hash && by(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let up = target; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
  const record = target.closest("details.record");  // its name should be in sight too
  if (record) {
    record.scrollIntoView({behavior: "instant"});
    target.scrollIntoView({behavior: "instant", block: "nearest"});
  }
  if (target.hasAttribute("tabindex")) target.focus({preventScroll: true});
}
addEventListener("hashchange", reveal);
addEventListener("load", () => setTimeout(reveal));  // after the browser's own jump
function fit() {
  for (const host of document.querySelectorAll(".scroll")) {
    host.classList.remove("fits");
    host.classList.toggle("fits", host.clientWidth > 0 && host.scrollWidth <= host.clientWidth);
  }
}
document.addEventListener("toggle", fit, true);
document.addEventListener("click", event => {  // the same link once more, after its details were folded again
  const link = event.target.closest && event.target.closest('a[href^="#"]');
  if (link && link.getAttribute("href") === location.hash) setTimeout(reveal);
});

// Drawing ---------------------------------------------------------------------------------------------------------

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
const colour = slot => `var(--s${slot % STYLES})`;

function marker(slot, x, y, size = 3.6) {
  const s = size, fill = colour(slot), at = (...points) =>
    svg("polygon", {points: points.map(([dx, dy]) => `${x + dx * s},${y + dy * s}`).join(" "), style: `fill:${fill}`});
  switch (slot % STYLES) {
    case 0: return svg("circle", {cx: x, cy: y, r: s, style: `fill:${fill}`});
    case 1: return at([-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]);
    case 2: return at([0, -1.2], [1.15, .85], [-1.15, .85]);
    case 3: return at([0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]);
    case 4: return at([0, 1.2], [1.15, -.85], [-1.15, -.85]);
    case 5: return svg("circle", {cx: x, cy: y, r: s, style: `fill:var(--ground);stroke:${fill};stroke-width:1.6`});
    case 6: return at([-1.2, -.4], [1.2, -.4], [1.2, .4], [-1.2, .4]);
    default: return at([-.4, -1.2], [.4, -1.2], [.4, 1.2], [-.4, 1.2]);
  }
}
function sample(slot) {
  return svg("svg", {width: 34, height: 12, "aria-hidden": "true"},
    svg("line", {x1: 1, x2: 33, y1: 6, y2: 6, class: "curve", style: `stroke:${colour(slot)}`, "stroke-dasharray": DASHES[slot % STYLES]}),
    marker(slot, 17, 6));
}
function legend(host, entries) {
  host.replaceChildren(...entries.map(([slot, name]) => {
    const entry = document.createElement("span");
    entry.append(slot === null ? svg("svg", {width: 34, height: 12, "aria-hidden": "true"},
      svg("line", {x1: 1, x2: 33, y1: 6, y2: 6, class: "reference"})) : sample(slot), name);
    return entry;
  }));
}
function ticks(low, high, wanted) {
  const raw = (high - low) / wanted || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find(factor => factor * power >= raw * .999) * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(+(k * step).toPrecision(10));
  return found;
}
const short = value => value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)
  ? value.toExponential(0).replace("e-", "e−") : String(value).replace("-", "−");

/* Series: {slot, name, points: [[x, y, low, high], ...]}; y null breaks the line. */
function lines(host, {label, series, references = [], xTicks, xText, height = 300, bands = false, markers = true}) {
  const width = Math.max(240, host.clientWidth || 600);
  const all = series.flatMap(of => of.points).filter(point => point[1] !== null);
  if (!all.length) { host.textContent = "nothing to draw"; return; }
  const reach = all.flatMap(p => bands && p[2] !== null && p[2] !== undefined ? [p[1], p[2], p[3]] : [p[1]])
    .concat(references.map(of => of.value));
  let low = Math.min(...reach), high = Math.max(...reach);
  const room = (high - low) * .05 || Math.abs(high) * .1 || 1;
  [low, high] = [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
  const yTicks = ticks(low, high, height > 200 ? 6 : 3);
  const left = 12 + 7 * Math.max(...yTicks.map(tick => short(tick).length)), right = 10, top = 8, bottom = 36;
  const xs = xTicks.map(tick => tick[0]), first = Math.min(...xs), span = Math.max(...xs) - first || 1;
  const inset = markers ? 8 : 0;
  const X = x => xs.length > 1 ? left + inset + (x - first) / span * (width - left - right - 2 * inset) : (left + width - right) / 2;
  const Y = y => top + (high - y) / (high - low) * (height - top - bottom);
  const root = svg("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label});
  for (const tick of yTicks) root.append(
    svg("line", {x1: left, x2: width - right, y1: Y(tick), y2: Y(tick), class: "axis"}),
    svg("text", {x: left - 7, y: Y(tick) + 4, "text-anchor": "end"}, short(tick)));
  root.append(svg("line", {x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, class: "axis base"}));
  for (const [x, text] of xTicks) root.append(svg("text", {x: X(x), y: height - bottom + 17, "text-anchor": "middle"}, text));
  root.append(svg("text", {x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle"}, xText));
  for (const {value, name} of references) root.append(svg("line", {x1: left, x2: width - right, y1: Y(value), y2: Y(value), class: "reference"},
    svg("title", {}, `${name}: ${value}`)));
  if (bands) for (const of of series) {
    const band = of.points.filter(p => p[2] !== null && p[2] !== undefined);
    if (band.length > 1) root.append(svg("polygon", {class: "band", style: `fill:${colour(of.slot)}`, points:
      [...band.map(p => [X(p[0]), Y(p[3])]), ...band.reverse().map(p => [X(p[0]), Y(p[2])])].map(p => p.map(v => v.toFixed(1)).join()).join(" ")}));
    else for (const p of band) root.append(svg("line", {x1: X(p[0]), x2: X(p[0]), y1: Y(p[2]), y2: Y(p[3]), class: "curve", style: `stroke:${colour(of.slot)}`}));
  }
  for (const of of [...series].reverse()) {
    let path = "", pen = "M";
    for (const [x, y] of of.points) {
      if (y === null) { pen = "M"; continue; }
      path += `${pen}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`;
      pen = "L";
    }
    root.append(svg("path", {d: path, class: "curve", style: `stroke:${colour(of.slot)}`, "stroke-dasharray": DASHES[of.slot % STYLES]},
      svg("title", {}, of.name)));
    const every = markers ? 1 : Math.ceil(of.points.length / 4);
    of.points.forEach(([x, y, lower, upper], place) => {
      if (y === null || (place + 2 * of.slot) % every) return;
      const mark = marker(of.slot, X(x), Y(y), markers ? 3.6 : 2.8);
      const between = lower === null || lower === undefined ? "" : ` (${lower} to ${upper})`;
      mark.append(svg("title", {}, `${of.name}: ${y}${between}`));
      root.append(mark);
    });
  }
  host.replaceChildren(root);
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

const ratioTicks = data.ratios.map(ratio => [+ratio, percent(+ratio)]);
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
  const of = data.training[by("trained").value] || {}, ratios = Object.keys(of).sort((a, b) => a - b);
  const few = ratios.length <= 5 ? ratios : [0, 1, 2, 3, 4].map(k => ratios[Math.round(k * (ratios.length - 1) / 4)]);
  const panels = new Map();
  few.forEach((ratio, slot) => {
    const {epochs, loss, epoch} = of[ratio];
    const add = (title, values, spread) => {
      const points = values.map((value, place) => [spread(place, values.length), value]);
      if (!points.some(p => p[1] !== null)) return;
      if (!panels.has(title)) panels.set(title, {epochs, series: []});
      panels.get(title).series.push({slot, name: `${percent(ratio)} known`, points});
    };
    for (const [name, values] of Object.entries(loss)) add(`loss: ${words(name)}`, values, (k, n) => (k + .5) / n * epochs);
    const kinds = ["scalar", "pseudo", "test"], kind = ([name]) => kinds.indexOf(name.split(".")[0]);
    for (const [name, values] of Object.entries(epoch).sort((a, b) => kind(a) - kind(b))) {
      const title = name.startsWith("test.") ? "mAP, percent" : name.startsWith("pseudo.") ? `pseudo-labels: ${words(name)}` : words(name);
      add(title, name.startsWith("test.") ? values.map(v => v === null ? v : +(100 * v).toFixed(2)) : values, k => k + 1);
    }
  });
  by("panels").replaceChildren(...[...panels].map(([title]) => {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption"), chart = document.createElement("div");
    caption.textContent = title;
    chart.className = "chart";
    figure.append(caption, chart);
    return figure;
  }));
  [...panels].forEach(([title, {epochs, series}], place) => lines(by("panels").children[place].lastChild, {
    label: `${title} while training`, series, markers: false, height: 170, xText: "epoch",
    xTicks: [0, ...ticks(1, epochs, 5).filter(tick => Number.isInteger(tick) && tick < epochs * .93), epochs].map(tick => [tick, String(tick)]),
  }));
  if (!panels.size) by("panels").textContent = "nothing was logged";
  legend(by("legend-training"), few.map((ratio, slot) => [slot, `${percent(ratio)} known`]));
}

function drawBars() {
  const ratio = by("bars-ratio").value, at = row => (data.precision[row] || {})[ratio];
  const row = by("bars-row").value, other = by("bars-other").value, host = by("chart-bars");
  const own = at(row), others = at(other), names = data.categories;
  if (!own) { host.textContent = "nothing to draw"; by("legend-bars").replaceChildren(); return; }
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

for (const row of data.rows) {
  if (Object.keys(data.training[row] || {}).length) option(by("trained"), row, row);
  if (Object.keys(data.precision[row] || {}).length) { option(by("bars-row"), row, row); option(by("bars-other"), row, row); }
}
for (const ratio of [...(data.ratios.length > 1 ? data.ratios : []), data.average]) option(by("bars-ratio"), ratio, isNaN(ratio) ? ratio : percent(ratio));
if (data.rows.some(row => (data.precision[row] || {})[data.average])) by("bars-ratio").value = data.average;
if (data.compared !== null) by("bars-other").value = data.compared;
// The first row to show is the strongest one that logs more than its loss.
const telling = data.chosen.find(row => Object.keys((Object.values(data.training[row] || {})[0] || {epoch: {}}).epoch).length > 1);
if (telling) by("trained").value = telling;
for (const id of ["metric", "bands"]) by(id).addEventListener("change", drawCurves);
by("trained").addEventListener("change", drawTraining);
for (const id of ["bars-row", "bars-other", "bars-ratio"]) by(id).addEventListener("change", drawBars);
function draw() { drawCurves(); drawTraining(); drawBars(); fit(); }
showChoices();
draw();
let drawn = innerWidth, timer;
addEventListener("resize", () => {
  clearTimeout(timer);
  timer = setTimeout(() => { if (innerWidth !== drawn) { drawn = innerWidth; draw(); } }, 120);
});
})();
