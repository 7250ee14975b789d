const DASHES = ["", "7 4", "2 3", "9 3 2 3", "12 4", "4 2", "1 4", "8 2 2 2 2 2"];
const STYLES = 8;

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
