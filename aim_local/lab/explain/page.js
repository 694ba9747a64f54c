"use strict";
// draws what the data block says; nothing is fetched
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const make = (name, parent, text = "") => {
  const element = document.createElement(name);
  element.textContent = text;
  parent.append(element);
  return element;
};
const LINE = "rgb(78,78,78)"; // outlines of what is not kept
const SHARP = data.pictures.length > 64 ? 224 : 448; // canvas pixels of the longer side: a phone's memory is small
const newlines = new Set(data.newlines);
for (const stage of data.stages) stage.set = new Set(stage.kept);
const stageOf = (il) => data.stages.find((stage) => il <= stage.last);
const scored = Object.keys(data.heat).map(Number);
const state = { il: 0, heat: false, token: -1, picture: null, cell: -1, timer: 0 };

// --- colours ---

function ramp(level) {
  const at = level * (data.ramp.length - 1);
  const i = Math.min(Math.floor(at), data.ramp.length - 2);
  const mix = data.ramp[i].map((low, c) => Math.round(low + (data.ramp[i + 1][c] - low) * (at - i)));
  return `rgb(${mix})`;
}

const hue = (i) => `hsl(${((i * 0.618034) % 1) * 360} 95% 62%)`;

// --- one picture ---

function cellBox(picture, i) {
  const { canvas, rows, cols } = picture;
  const x = i % cols, y = Math.floor(i / cols);
  const left = Math.round((x * canvas.width) / cols), top = Math.round((y * canvas.height) / rows);
  const right = Math.round(((x + 1) * canvas.width) / cols), bottom = Math.round(((y + 1) * canvas.height) / rows);
  return [left, top, right - left, bottom - top];
}

function wash(g, box, colour, share) { // grey first, then the colour over it
  g.globalCompositeOperation = "saturation";
  g.fillStyle = "#808080";
  g.fillRect(...box);
  g.globalCompositeOperation = "source-over";
  g.globalAlpha = share;
  g.fillStyle = colour;
  g.fillRect(...box);
  g.globalAlpha = 1;
}

function outline(g, picture, i, colour, thick) { // the sides where another token begins
  const { rows, cols, owners } = picture;
  const [x, y, w, h] = cellBox(picture, i);
  const other = (inside, j) => !inside || owners[j] !== owners[i];
  g.fillStyle = colour;
  if (other(i % cols > 0, i - 1)) g.fillRect(x, y, thick, h);
  if (other(i % cols < cols - 1, i + 1)) g.fillRect(x + w - thick, y, thick, h);
  if (other(i >= cols, i - cols)) g.fillRect(x, y, w, thick);
  if (other(i < cols * (rows - 1), i + cols)) g.fillRect(x, y + h - thick, w, thick);
}

function drawCell(g, picture, i, kept, levels, thick) {
  const token = picture.owners[i];
  const level = levels ? levels.get(token) : undefined;
  if (levels && level !== undefined) wash(g, cellBox(picture, i), ramp(level), data.heatShare);
  else if (levels || !kept.has(token)) wash(g, cellBox(picture, i), `rgb(${data.fog},${data.fog},${data.fog})`, data.fogShare);
  if (!levels && kept.has(token)) outline(g, picture, i, hue(token), thick);
  else outline(g, picture, i, LINE, 1);
}

function draw(picture, levels) {
  const { canvas, image, owners } = picture;
  const g = canvas.getContext("2d");
  const kept = stageOf(state.il).set;
  const thick = SHARP > 300 ? 4 : 2;
  g.drawImage(image, 0, 0, canvas.width, canvas.height);
  for (let i = 0; i < owners.length; i++) drawCell(g, picture, i, kept, levels, thick);
  for (let i = 0; i < owners.length; i++) if (owners[i] === state.token) outline(g, picture, i, "#fff", thick + 2);
  if (picture === state.picture) {
    g.strokeStyle = "#000";
    g.lineWidth = thick;
    const [x, y, w, h] = cellBox(picture, state.cell);
    g.strokeRect(x + thick, y + thick, w - 2 * thick, h - 2 * thick);
  }
  const n = picture.tokens.filter((token) => kept.has(token)).length;
  picture.count.textContent = `${n}/${picture.tokens.length}`;
  picture.count.className = n ? "" : "none";
  canvas.setAttribute("aria-label", `${picture.label}: ${n} of ${picture.tokens.length} tokens kept in layer ${state.il}`);
}

// --- the page for one layer ---

function levelsNow() {
  if (!state.heat || !(state.il in data.heat)) return null;
  const kept = stageOf(state.il).kept;
  return new Map(data.heat[state.il].map((level, i) => [kept[i], level]));
}

function caption() {
  const stage = stageOf(state.il), n = stage.kept.length;
  const lines = stage.kept.filter((token) => newlines.has(token)).length;
  let text = `Layer ${state.il}: ${n} of ${data.n_visual} visual tokens (${Math.round((100 * n) / data.n_visual)} %)`;
  if (newlines.size) text += `, ${lines} of ${newlines.size} newline row${newlines.size > 1 ? "s" : ""} among them`;
  if (!state.heat) return text;
  if (state.il in data.heat) return `${text}. Shown: their importance.`;
  const where = scored.length ? `scored are layers ${scored.join(", ")}` : "no layer was scored";
  return `${text}. No importance here: ${where}.`;
}

function refresh() {
  const levels = levelsNow();
  find("number").textContent = state.il;
  find("layer").value = state.il;
  find("layer").setAttribute("aria-valuetext", `layer ${state.il} of ${data.n_layer}`);
  find("caption").textContent = caption();
  [...find("strip").children].forEach((bar, il) => bar.classList.toggle("now", il === state.il));
  for (const picture of data.pictures) draw(picture, levels);
  if (state.picture) describe();
}

function show(il) {
  state.il = Math.max(0, Math.min(data.n_layer - 1, il));
  refresh();
}

// --- one token ---

function describe() {
  const { picture, token } = state;
  const covered = (other) => other.owners.filter((owner) => owner === token).length;
  const n = covered(picture), others = data.pictures.filter((other) => other !== picture && covered(other));
  const more = others.length ? `, and ${others.reduce((sum, other) => sum + covered(other), 0)} in ${others.map((other) => other.label).join(", ")},` : "";
  const last = data.stages.filter((stage) => stage.set.has(token)).at(-1);
  const scores = scored.filter((il) => stageOf(il).set.has(token))
    .map((il) => `layer ${il}: ${data.scores[il][stageOf(il).kept.indexOf(token)].toPrecision(3)}`);
  find("detail").textContent = `Token ${token} of ${picture.label} covers ${n} of ${picture.owners.length} patches${more}` +
    ` and reaches layer ${last.last} of ${data.n_layer - 1}.` + (scores.length ? ` Importance in ${scores.join(", ")}.` : "");
}

function pick(picture, cell) {
  const before = state.picture, token = state.token;
  if (before === picture && state.cell === cell) return;
  Object.assign(state, { picture, cell, token: picture ? picture.owners[cell] : -1 });
  const shows = (other) => other.tokens.includes(token) || other.tokens.includes(state.token); // a token may cover several
  for (const other of data.pictures) if (other === before || other === picture || shows(other)) draw(other, levelsNow());
  if (picture) describe();
}

function cellAt(picture, event) {
  const box = picture.canvas.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * picture.cols);
  const y = Math.floor(((event.clientY - box.top) / box.height) * picture.rows);
  return Math.max(0, Math.min(picture.rows - 1, y)) * picture.cols + Math.max(0, Math.min(picture.cols - 1, x));
}

function walk(picture, event) {
  const { rows, cols } = picture;
  const at = picture === state.picture ? state.cell : 0;
  const x = at % cols, y = Math.floor(at / cols);
  const moves = {
    ArrowLeft: [Math.max(0, x - 1), y], ArrowRight: [Math.min(cols - 1, x + 1), y],
    ArrowUp: [x, Math.max(0, y - 1)], ArrowDown: [x, Math.min(rows - 1, y + 1)],
  };
  if (event.key === "Escape") return pick(null, -1);
  if (!(event.key in moves)) return;
  event.preventDefault();
  const [nx, ny] = moves[event.key];
  pick(picture, ny * cols + nx);
}

// --- building ---

async function addPicture(picture) {
  const figure = make("figure", find("pictures"));
  const head = make("figcaption", figure);
  make("span", head, picture.label);
  picture.count = make("b", head);
  picture.canvas = make("canvas", figure);
  const scale = SHARP / Math.max(picture.width, picture.height);
  picture.canvas.width = Math.round(picture.width * scale);
  picture.canvas.height = Math.round(picture.height * scale);
  Object.assign(picture.canvas, { tabIndex: 0 }).setAttribute("role", "img");
  picture.canvas.addEventListener("pointermove", (event) => pick(picture, cellAt(picture, event)));
  picture.canvas.addEventListener("pointerdown", (event) => pick(picture, cellAt(picture, event)));
  picture.canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && pick(null, -1));
  picture.canvas.addEventListener("keydown", (event) => walk(picture, event));
  picture.image = new Image();
  picture.image.src = picture.src;
  await picture.image.decode();
}

function addStrip() {
  for (let il = 0; il < data.n_layer; il++) {
    const slot = make("i", find("strip"));
    slot.title = `layer ${il}: ${stageOf(il).kept.length} visual tokens${il in data.heat ? ", scored" : ""}`;
    slot.classList.toggle("scored", il in data.heat);
    make("b", slot).style.height = `${(100 * stageOf(il).kept.length) / data.n_visual}%`;
    slot.addEventListener("click", () => show(il));
  }
}

function addNumbers() {
  const body = find("numbers").tBodies[0];
  for (const { first, last, kept } of data.stages) {
    const row = make("tr", body);
    make("td", row, first === last ? `${first}` : `${first} to ${last}`).className = "text";
    make("td", row, `${kept.length}`);
    make("td", row, `${((100 * kept.length) / data.n_visual).toFixed(1)} %`);
    make("td", row, scored.filter((il) => first <= il && il <= last).join(", ") || "-").className = "text";
  }
}

function swatch(parent, text, width, paint) {
  const item = make("span", parent);
  const canvas = make("canvas", item);
  canvas.width = width;
  canvas.height = 18;
  paint(canvas.getContext("2d"), width);
  make("span", item, text);
}

function small(g) {
  for (const [colour, ...box] of [["#468ceb", 0, 0, 26, 11], ["#3ca546", 0, 11, 26, 7], ["#fad73c", 16, 2, 6, 6]]) {
    g.fillStyle = colour;
    g.fillRect(...box);
  }
}

function addLegend() {
  const legend = find("legend");
  swatch(legend, "kept", 26, small);
  swatch(legend, "dropped", 26, (g) => {
    small(g);
    wash(g, [0, 0, 26, 18], `rgb(${data.fog},${data.fog},${data.fog})`, data.fogShare);
  });
  swatch(legend, "one outline colour: one merged token, in all pictures it covers", 26, (g) => {
    g.strokeStyle = hue(1);
    g.lineWidth = 3;
    g.strokeRect(2, 2, 22, 14);
  });
  if (scored.length) {
    swatch(legend, "importance, lowest to highest place in the ranking; scored layers have an orange cap above", 120, (g, width) => {
      for (let x = 0; x < width; x++) {
        g.fillStyle = ramp(x / (width - 1));
        g.fillRect(x, 0, 1, 18);
      }
    });
  }
}

function play() {
  const on = !state.timer;
  if (on && state.il === data.n_layer - 1) show(0);
  clearInterval(state.timer);
  state.timer = on ? setInterval(() => (state.il === data.n_layer - 1 ? play() : show(state.il + 1)), 700) : 0;
  find("play").textContent = on ? "Pause" : "Play";
  find("play").setAttribute("aria-pressed", on);
}

// "#layer=8&heat" opens there; else the first layer that sees fewer tokens, for that is what one came to see
function open() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const first = data.stages.find((stage, i) => i > 0 && stage.kept.length > 0) || data.stages[0];
  const il = Number(asked.get("layer") ?? first.first);
  state.il = Number.isInteger(il) && il >= 0 && il < data.n_layer ? il : 0;
  state.heat = asked.has("heat") && scored.length > 0;
  find("heat").checked = state.heat;
}

async function start() {
  find("layer").max = data.n_layer - 1;
  find("heat").disabled = !scored.length;
  find("pictures").classList.toggle("few", data.pictures.length < 3);
  addStrip();
  addNumbers();
  addLegend();
  await Promise.all(data.pictures.map(addPicture));
  find("layer").addEventListener("input", (event) => show(Number(event.target.value)));
  find("heat").addEventListener("change", (event) => {
    state.heat = event.target.checked;
    if (state.heat && !(state.il in data.heat)) state.il = scored[0]; // there is something to see there
    refresh();
  });
  find("play").addEventListener("click", play);
  open();
  find("app").hidden = false;
  refresh();
}

start();
