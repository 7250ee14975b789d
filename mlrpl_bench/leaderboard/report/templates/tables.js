const by = id => document.getElementById(id);
const words = name => name.replace(/^(scalar|loss|pseudo)\./, "").replace(/[_.]/g, " ");
const percent = (ratio, complete) => +ratio === 1 && !complete ? "all given" : `${+(100 * ratio).toPrecision(6)} %`;

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
