// Training on the pages of methods and records ---------------------------------------------------------------------

if (by("course-data")) {
  const {courses, complete} = JSON.parse(by("course-data").textContent);
  drawings.push(() => trainingPanels(by("panels"), by("legend-training"), courses, complete));
}
if (by("course")) {
  const draw = () => {
    const name = by("course").value;
    load(name, found => {
      if (by("course").value !== name) return;
      if (found) trainingPanels(by("panels"), by("legend-training"), found.training, found.complete);
      else { by("panels").textContent = `data/${name}.js is not there`; by("legend-training").replaceChildren(); }
    });
  };
  by("course").addEventListener("change", draw);
  drawings.push(draw);
}
if (!by("data")) {
  for (const draw of drawings) draw();
  fit();
}

// Search ----------------------------------------------------------------------------------------------------------

const query = by("query"), hits = by("hits"), SHOWN = 20;
document.querySelector(".search").hidden = false;
function search() {
  const wanted = query.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) { hits.hidden = true; return; }
  load("search", entries => {
    if (query.value.toLowerCase().split(/\s+/).filter(Boolean).join(" ") !== wanted.join(" ")) return;
    const has = text => wanted.every(word => text.toLowerCase().includes(word));
    const found = (entries || []).filter(([text, about]) => has(`${text} ${about}`));
    found.sort((a, b) => has(b[0]) - has(a[0]));  // names before what is only said of something
    by("num-hits").textContent = !entries ? "data/search.js is not there"
      : found.length > SHOWN ? `${SHOWN} of ${found.length} found` : `${found.length || "nothing"} found`;
    hits.lastElementChild.replaceChildren(...found.slice(0, SHOWN).map(([text, about, href]) => {
      const item = document.createElement("li"), link = document.createElement("a"), kind = document.createElement("span");
      link.href = document.body.dataset.root + href;
      link.textContent = text;
      kind.textContent = ` ${about}`;
      kind.className = "rest";
      item.append(link, kind);
      return item;
    }));
    hits.hidden = false;
  });
}
query.addEventListener("input", search);
query.addEventListener("focus", () => load("search", () => {}));
addEventListener("keydown", event => {
  const links = [...hits.querySelectorAll("a")], place = links.indexOf(document.activeElement);
  if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName) && !event.ctrlKey && !event.metaKey && !event.altKey) query.focus();
  else if (event.key === "Escape" && !hits.hidden) { query.value = ""; hits.hidden = true; query.focus(); }
  else if (event.key === "Enter" && document.activeElement === query && links.length && !hits.hidden) links[0].click();
  else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !hits.hidden && (place >= 0 || document.activeElement === query)) {
    const next = place + (event.key === "ArrowDown" ? 1 : -1);
    (next < 0 ? query : links[Math.min(next, links.length - 1)]).focus();
  } else return;
  event.preventDefault();
});
addEventListener("pagehide", () => { query.value = ""; hits.hidden = true; });
addEventListener("click", event => { if (!event.target.closest(".search")) hits.hidden = true; });
