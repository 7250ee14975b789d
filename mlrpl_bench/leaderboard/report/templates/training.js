// Data of one row, which a site keeps in a file of its own ---------------------------------------------------------

const arrived = new Map(), awaited = new Map();
window.registerData = (name, content) => {  // every data file calls it
  arrived.set(name, content);
  for (const then of awaited.get(name) || []) then(content);
  awaited.delete(name);
};
/* A script and not a request, because pages opened from a disk may request nothing. */
function load(name, then) {
  if (arrived.has(name)) { then(arrived.get(name)); return; }
  if (awaited.has(name)) { awaited.get(name).push(then); return; }
  awaited.set(name, [then]);
  const script = document.createElement("script");
  script.src = `${document.body.dataset.root}data/${name}.js`;
  script.addEventListener("error", () => {
    script.remove();
    for (const waiting of awaited.get(name) || []) waiting(null);
    awaited.delete(name);
  });
  document.head.append(script);
}

// Courses of training ---------------------------------------------------------------------------------------------

/* By known ratio {epochs, loss, epoch}: a panel for each loss term and whatever else was logged. */
function trainingPanels(host, keys, courses, complete) {
  const ratios = Object.keys(courses).sort((a, b) => a - b);
  const few = ratios.length <= 5 ? ratios : [0, 1, 2, 3, 4].map(k => ratios[Math.round(k * (ratios.length - 1) / 4)]);
  const panels = new Map();
  few.forEach((ratio, slot) => {
    const {epochs, loss, epoch} = courses[ratio];
    const add = (title, values, spread, isJoined = false) => {
      const points = values.map((value, place) => [spread(place, values.length), value]).filter(p => !isJoined || p[1] !== null);
      if (!points.some(p => p[1] !== null)) return;
      if (!panels.has(title)) panels.set(title, {epochs, series: []});
      panels.get(title).series.push({slot, name: `${percent(ratio, complete)} known`, points});
    };
    for (const [name, values] of Object.entries(loss)) add(`loss: ${words(name)}`, values, (k, n) => (k + .5) / n * epochs);
    const kinds = ["scalar", "pseudo", "test"], kind = ([name]) => kinds.indexOf(name.split(".")[0]);
    for (const [name, values] of Object.entries(epoch).sort((a, b) => kind(a) - kind(b))) {
      const title = name.startsWith("test.") ? "mAP, percent" : name.startsWith("pseudo.") ? `pseudo-labels: ${words(name)}` : words(name);
      // Epochs without evaluation are stepped over: a point between two gaps would have no line.
      if (name.startsWith("test.")) add(title, values.map(v => v === null ? v : +(100 * v).toFixed(2)), k => k + 1, true);
      else add(title, values, k => k + 1);
    }
  });
  host.replaceChildren(...[...panels].map(([title]) => {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption"), chart = document.createElement("div");
    caption.textContent = title;
    chart.className = "chart";
    figure.append(caption, chart);
    return figure;
  }));
  [...panels].forEach(([title, {epochs, series}], place) => lines(host.children[place].lastChild, {
    label: `${title} while training`, series, markers: false, height: 170, xText: "epoch",
    xTicks: [0, ...ticks(1, epochs, 5).filter(tick => Number.isInteger(tick) && tick < epochs * .93), epochs].map(tick => [tick, String(tick)]),
  }));
  if (!panels.size) host.textContent = "nothing was logged";
  legend(keys, few.map((ratio, slot) => [slot, `${percent(ratio, complete)} known`]));
}

const drawings = [];  // what is drawn again when the window's width changes
let drawn = innerWidth, timer;
addEventListener("resize", () => {
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (innerWidth === drawn) return;
    drawn = innerWidth;
    for (const draw of drawings) draw();
    fit();
  }, 120);
});
