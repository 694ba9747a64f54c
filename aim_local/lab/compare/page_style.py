"""Style and script of the comparison page. The script only adds: without it everything is there, unsorted."""

# Eight colours that stay apart with the common colour blindnesses (after Okabe and Ito 2008), darkened or lightened
# until each has a contrast of at least 3 with its background.
CSS = """
:root { --c0: #0072b2; --c1: #c84e00; --c2: #00815e; --c3: #b0478a;
  --c4: #8f6a00; --c5: #4a4f57; --c6: #2f8fc4; --c7: #7a5cc7; }
@media (prefers-color-scheme: dark) {
  :root { --c0: #56b4e9; --c1: #ff8a4c; --c2: #2fc79b; --c3: #ec9ccb;
    --c4: #f0c445; --c5: #c9ced6; --c6: #7fa8ff; --c7: #b9a2ff; } }
dl.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1rem; margin: .8rem 0; }
dl.facts dt { color: var(--muted); }
dl.facts dd { margin: 0; }
.lead { font-size: 1.05rem; max-width: 52rem; }
.card { --kind: var(--muted); border: 1px solid var(--line); border-left: 6px solid var(--kind); border-radius: 10px;
  background: var(--panel); padding: 1rem 1.25rem 1.05rem; margin: 1rem 0 1.4rem; break-inside: avoid; }
.card.use { --kind: var(--good); }
.card.more { --kind: var(--warn); }
.card h2 { margin: 0; font-size: 1.5rem; color: var(--kind); }
.card.none h2 { color: var(--text); }
.kicker { margin: 0 0 .15rem; font-size: .85rem; color: var(--muted); }
.why p { margin: .35rem 0 0; max-width: 62rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 10.5rem), 1fr)); gap: .6rem;
  margin: .8rem 0 .7rem; }
.tiles > div { background: var(--bg); border: 1px solid var(--line); border-radius: 8px; padding: .5rem .75rem; }
.tiles dt { font-size: .8rem; color: var(--muted); }
.tiles dd { margin: 0; }
.tiles strong { display: block; font-size: 1.3rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles small { color: var(--muted); font-size: .8rem; }
.verdicts { list-style: none; margin: .5rem 0 0; padding: 0; font-size: .9rem; max-width: none; }
.verdicts li { display: grid; grid-template-columns: minmax(0, 1.25fr) minmax(0, 1fr) minmax(0, 1.6fr);
  gap: .1rem 1.1rem; align-items: center; padding: .3rem .3rem; border-top: 1px solid var(--line);
  break-inside: avoid; }
.verdicts .cell { display: flex; gap: .45rem; align-items: flex-start; min-width: 0; overflow-wrap: anywhere; }
.verdicts .n { flex: none; min-width: 1.5rem; text-align: right; color: var(--muted); }
.verdicts .mark { flex: none; width: 16px; height: 16px; position: relative; top: 3px; }
.chip { color: var(--muted); overflow-wrap: anywhere; }
.chip strong { font-weight: 600; }
.chip.within strong { color: var(--good); }
.chip.undecided strong { color: var(--warn); }
.chip.loses strong { color: var(--bad); }
.chip small { display: block; font-size: .8rem; }
.diff { display: flex; gap: .7rem; align-items: center; min-width: 0; }
.diff svg { flex: 1 1 60%; min-width: 0; width: 100%; height: auto; max-height: 30px; }
.diff .value { flex: none; width: 10.5rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.diff .bar { stroke: currentColor; stroke-width: 2; opacity: 1; }
.diff circle { fill: currentColor; }
.diff svg { color: var(--muted); overflow: visible; }
.diff.within svg { color: var(--good); }
.diff.undecided svg { color: var(--warn); }
.diff.loses svg { color: var(--bad); }
svg .margin { stroke: var(--text); stroke-dasharray: 4 3; stroke-width: 1.4; fill: none; }
.verdicts .axis .value { color: var(--muted); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr));
  gap: 1.2rem 1.4rem; margin: 1rem 0; }
.on-phone { display: none; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: .1rem; }
figure svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 11.5px; }
svg text.name { fill: var(--text); font-size: 12px; }
svg text.label { fill: var(--text); paint-order: stroke; stroke: var(--bg); stroke-width: 3px; stroke-linejoin: round; }
svg .lead { stroke: var(--muted); stroke-width: .8; fill: none; }
svg .grid { stroke: var(--grid); fill: none; }
svg .axis { stroke: var(--muted); fill: none; }
svg .break { stroke: var(--muted); stroke-dasharray: 2 4; fill: none; }
svg .bar { stroke-width: 1.5; opacity: .8; fill: none; }
svg .front { stroke: var(--text); stroke-width: 1.3; stroke-dasharray: 5 3; fill: none; }
svg .ring { fill: none; stroke: var(--text); stroke-width: 1.4; }
svg .hit { fill: transparent; }
svg .point path { stroke-width: 1.4; }
.readout { min-height: 3em; margin: .1rem 0 0; font-size: .85rem; color: var(--muted); overflow-wrap: anywhere; }
table.wide th[scope=row], table.tags th[scope=row] { position: sticky; left: 0; background: var(--bg); z-index: 1;
  white-space: normal; overflow-wrap: anywhere; min-width: 11rem; max-width: 20rem;
  border-right: 1px solid var(--line); font-weight: 600; }
thead .first { background: var(--panel); position: sticky; left: 0; z-index: 2; border-right: 1px solid var(--line); }
thead th.first button + button { margin-left: .8rem; }
th small, td small { display: block; font-weight: 400; color: var(--muted); font-size: .78rem; }
table.wide .group { border-left: 1px solid var(--line); }
table.wide thead tr:first-child > * { background: var(--panel); }
table.wide thead tr:first-child th { text-align: left; }
td.status { text-align: left; white-space: normal; min-width: 7rem; max-width: 20rem; overflow-wrap: anywhere; }
tr.failed td.status small { color: var(--bad); min-width: 13rem; }
.faults li { margin: .2rem 0; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: .2rem 0; cursor: pointer;
  text-align: inherit; white-space: nowrap; text-decoration: underline dotted; text-underline-offset: 3px; }
th button::after { content: " \\2195"; color: var(--muted); }
th button[data-dir="1"]::after { content: " \\2191"; color: var(--text); }
th button[data-dir="-1"]::after { content: " \\2193"; color: var(--text); }
td.tag { min-width: 5.5rem; }
table.wide th[data-n]::before { content: attr(data-n); float: left; min-width: 1.6rem; font-weight: 400;
  color: var(--muted); }
@media screen and (max-width: 760px) {
  .on-desktop { display: none; }
  .on-phone { display: block; }
  .verdicts li { grid-template-columns: minmax(0, 1fr); padding: .5rem .1rem; }
  .verdicts .chip, .verdicts .diff { padding-left: 1.95rem; }
  .verdicts .diff:empty, .verdicts .axis > span:empty { display: none; }
  .verdicts .diff svg { order: 2; }
  .diff { flex-wrap: wrap; gap: 0; }
  .diff .value { width: auto; order: 1; flex-basis: 100%; }
  .diff svg { flex-basis: 100%; }
}
@media (max-width: 600px) {
  .card { padding: .8rem .9rem; }
  .card h2 { font-size: 1.25rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .tiles strong { font-size: 1.1rem; }
  dl.facts { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dl.facts dd { margin-bottom: .45rem; }
  table.wide th[scope=row], table.tags th[scope=row] { min-width: 8rem; max-width: 9.5rem; }
  thead th.first button + button { margin-left: .5rem; }
}
@page { margin: 12mm; }
@media print {
  main { padding: 0; max-width: none; }
  .readout { display: none; }
  figure, .faults li { break-inside: avoid; }
  .plots { grid-template-columns: 1fr 1fr 1fr; }
  figcaption { font-size: .8rem; }
  .verdicts { font-size: .75rem; }
  .verdicts li { grid-template-columns: minmax(0, 1.2fr) minmax(0, .9fr) minmax(0, 1.8fr); gap: .1rem .6rem; }
  .diff .value { width: 8rem; }
  .scroll { overflow: visible; border: 0; }
  table.wide, table.wide tbody { display: block; }
  table.wide thead { display: none; }
  table.wide tr { display: flex; flex-wrap: wrap; border-top: 1px solid var(--line); padding: .3rem 0;
    break-inside: avoid; }
  table.wide th[scope=row] { flex: 1 0 100%; position: static; max-width: none; border: 0; padding: .1rem 0; }
  table.wide td, table.wide td.group { border: 0; text-align: left; padding: .15rem .9rem .15rem 0; }
  table.wide td[data-head]::before { content: attr(data-head); display: block; font-size: .7rem; color: var(--muted); }
}
"""

SCRIPT = """
"use strict";
const values = JSON.parse(document.getElementById("sort-values").textContent);
const table = document.getElementById("cells"), rows = [...table.tBodies[0].rows];
const buttons = [...table.querySelectorAll("[data-key]")].map(span => {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.key = span.dataset.key;
  button.textContent = span.textContent;
  span.replaceWith(button);
  button.addEventListener("click", () => sort(button));
  return button;
});
function sort(button) {
  const key = button.dataset.key, dir = button.dataset.dir === "1" ? -1 : 1;
  for (const other of buttons) {
    delete other.dataset.dir;
    other.closest("th").removeAttribute("aria-sort");
  }
  button.dataset.dir = dir;
  button.closest("th").setAttribute("aria-sort", dir > 0 ? "ascending" : "descending");
  const value = row => values[row.dataset.i][key];
  const missing = row => value(row) === undefined ? 1 : 0;
  rows.sort((a, b) => missing(a) - missing(b) || dir * (value(a) - value(b)) || a.dataset.i - b.dataset.i);
  table.tBodies[0].append(...rows);
}
// a phone has no tooltips: the text of a touched point stands under its plot
for (const figure of document.querySelectorAll("figure")) {
  const readout = figure.querySelector(".readout"), hint = readout.textContent;
  for (const point of figure.querySelectorAll(".point")) {
    const show = () => { readout.textContent = point.querySelector("title").textContent; };
    point.addEventListener("click", show);
    point.addEventListener("pointerenter", show);
    point.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") readout.textContent = hint; });
  }
}
"""
