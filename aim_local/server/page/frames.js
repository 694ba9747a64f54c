// The frames that were read, as a strip, and one of them large: what was kept of each, drawn on a canvas.

import { button, find, icon, make, say } from "./dom.js";
import { clock } from "./times.js";

// as in `aim-local explain`: what dropped pieces fade into, and the ramp from first given up to longest kept
const FOG = "rgb(104,104,104)",
  FOG_SHARE = 0.74,
  HEAT_SHARE = 0.62;
const RAMP = [
  [68, 1, 84],
  [68, 57, 131],
  [49, 104, 142],
  [33, 145, 140],
  [53, 183, 121],
  [144, 215, 67],
  [253, 231, 37],
];
const JPEG = /^data:image\/jpeg;base64,[A-Za-z0-9+/=]+$/;
const THUMB = 224; // pixels of a thumbnail's width: twice what it is shown in
const MODES = { kept: "What was kept", heat: "Where it looked", plain: "Plain" };

function ramp(level) {
  const at = level * (RAMP.length - 1), i = Math.min(Math.floor(at), RAMP.length - 2);
  return `rgb(${RAMP[i].map((low, c) => Math.round(low + (RAMP[i + 1][c] - low) * (at - i)))})`;
}

// --- one picture ---

function box({ rows, cols }, canvas, i) {
  const x = i % cols,
    y = Math.floor(i / cols),
    side = (n, of, all) => Math.round((n * all) / of);
  const left = side(x, cols, canvas.width), top = side(y, rows, canvas.height);
  return [left, top, side(x + 1, cols, canvas.width) - left, side(y + 1, rows, canvas.height) - top];
}

function wash(g, where, colour, share) {
  // grey first, then the colour over it
  g.globalCompositeOperation = "saturation";
  g.fillStyle = "#808080";
  g.fillRect(...where);
  g.globalCompositeOperation = "source-over";
  g.globalAlpha = share;
  g.fillStyle = colour;
  g.fillRect(...where);
  g.globalAlpha = 1;
}

function outline(g, frame, canvas, parted, colour, thick) {
  // along the edges where `parted` says so
  const { rows, cols } = frame;
  g.fillStyle = colour;
  for (let i = 0; i < rows * cols; i++) {
    const [x, y, w, h] = box(frame, canvas, i), column = i % cols;
    if (column > 0 && parted(i, i - 1)) g.fillRect(x - thick / 2, y, thick, h);
    if (i >= cols && parted(i, i - cols)) g.fillRect(x, y - thick / 2, w, thick);
  }
}

function draw(canvas, frame, image, mode, large) {
  const g = canvas.getContext("2d");
  g.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (mode === "plain") return;
  for (let i = 0; i < frame.kept.length; i++) {
    if (mode === "heat" && frame.heat) wash(g, box(frame, canvas, i), ramp(frame.heat[i]), HEAT_SHARE);
    else if (!frame.kept[i]) wash(g, box(frame, canvas, i), FOG, FOG_SHARE);
  }
  if (large && frame.tokens)
    outline(g, frame, canvas, (a, b) => frame.tokens[a] !== frame.tokens[b], "rgb(255 255 255 / .28)", 2);
  if (mode === "kept")
    outline(g, frame, canvas, (a, b) => frame.kept[a] !== frame.kept[b], "rgb(255 255 255 / .92)", large ? 4 : 2);
}

async function load(frame) {
  if (frame.loaded) return frame.loaded;
  if (!JPEG.test(frame.image)) throw new Error("no picture");
  const image = new Image();
  image.src = frame.image;
  await image.decode();
  frame.loaded = image;
  return image;
}

async function paint(canvas, frame, mode, side, large = false) {
  const image = await load(frame).catch(() => null);
  if (!image) return;
  const scale = side / Math.max(image.naturalWidth, image.naturalHeight);
  canvas.width = Math.round(image.naturalWidth * scale);
  canvas.height = Math.round(image.naturalHeight * scale);
  draw(canvas, frame, image, mode, large);
}

// --- words ---

const nameOf = (frame) => frame.label.replace(/^\d+: /, ""); // its clip is told by name, not by number
const timeOf = (frame) => (frame.time === null ? "" : clock(frame.time, true));

function words(frame) {
  const slots = frame.rows * frame.cols, merged = frame.n < slots;
  if (!merged && frame.n_kept === frame.n) return `all ${slots} pieces kept`;
  if (!merged) return `${frame.n_kept || "none"} of ${slots} pieces kept`;
  const lasted = frame.n_kept === frame.n ? "all kept" : `${frame.n_kept || "none"} kept`;
  return `${slots} pieces put together into ${frame.n}, ${lasted}`;
}

// --- the strip ---

// looks: of the service. acts: {seek(frame), canSeek(frame): to its time in the player; titleOf(frame): its clip}
export function strip(looks, acts) {
  const view = { looks, mode: "kept", items: [], ...acts };
  const list = make("ol", { class: "strip", "aria-label": "Frames that were read" });
  const several = new Set(looks.frames.map((frame) => frame.media)).size > 1;
  looks.frames.forEach((frame, i) => {
    const first = several && frame.media !== looks.frames[i - 1]?.media;
    list.append(item(view, frame, i, first ? acts.titleOf(frame) : ""));
  });
  list.addEventListener("keydown", (event) => walk(view, event));
  view.items[0]?.forEach((part) => {
    part.tabIndex = 0;
  });
  const redraw = whenSeen(view);
  return make(
    "div",
    { class: "looks" },
    modes(view, redraw),
    list,
    make("p", { class: "hint" }, `${looks.detail ?? ""} Under a frame: how many of its pieces were kept.`),
  );
}

// pictures are drawn when they come into sight: a long clip has hundreds
function whenSeen(view) {
  const seen = new Set();
  const drawn = (canvas) => paint(canvas, view.looks.frames[Number(canvas.dataset.frame)], view.mode, THUMB);
  const watch = new IntersectionObserver(
    (changes) => {
      for (const { target, isIntersecting } of changes) {
        if (!isIntersecting) seen.delete(target);
        else if (seen.add(target)) drawn(target);
      }
    },
    { rootMargin: "50%" },
  );
  for (const { canvas } of view.items) watch.observe(canvas);
  return () => seen.forEach(drawn);
}

function modes(view, redraw) {
  const names = Object.keys(MODES).filter((mode) => mode !== "heat" || view.looks.frames.some((frame) => frame.heat));
  const group = make("div", { class: "modes", role: "group", "aria-label": "What the frames show" });
  const scale = make(
    "span",
    { class: "ramp", hidden: true, "aria-hidden": "true" },
    "let go first",
    make("i"),
    "kept longest",
  );
  const press = (mode) => {
    view.mode = mode;
    for (const one of group.querySelectorAll("button"))
      one.setAttribute("aria-pressed", String(one.dataset.mode === mode));
    scale.hidden = mode !== "heat";
    redraw();
  };
  group.append(
    ...names.map((mode) =>
      make(
        "button",
        { type: "button", "data-mode": mode, "aria-pressed": String(mode === view.mode), onclick: () => press(mode) },
        MODES[mode],
      ),
    ),
  );
  group.append(scale);
  return group;
}

function item(view, frame, i, of) {
  // as high as its picture from the beginning, so that nothing moves when it is drawn
  const canvas = make("canvas", {
    width: THUMB,
    height: Math.round((THUMB * (frame.height || 1)) / (frame.width || 1)),
    "data-frame": i,
    "aria-hidden": "true",
  });
  const open = make(
    "button",
    {
      type: "button",
      class: "frame",
      tabindex: -1,
      "aria-label": `Enlarge ${nameOf(frame)}: ${words(frame)}`,
      onclick: () => enlarge(view, i),
    },
    canvas,
  );
  const here = frame.time !== null && view.canSeek(frame);
  const time = !here
    ? make("span", { class: "when" }, frame.time === null ? nameOf(frame) : timeOf(frame))
    : make(
        "button",
        {
          type: "button",
          class: "when time",
          tabindex: -1,
          "aria-label": `Jump to ${timeOf(frame)}`,
          onclick: () => view.seek(frame),
        },
        timeOf(frame),
      );
  view.items.push(Object.assign(here ? [open, time] : [open], { canvas }));
  const count = make(
    "span",
    { class: frame.n_kept ? "count" : "count none", "aria-hidden": "true" },
    `${frame.n_kept}/${frame.n}`,
  );
  return make(
    "li",
    {},
    make("bdi", { class: "of", hidden: !of }, of),
    open,
    make("span", { class: "under" }, time, count),
  );
}

// one frame of the strip is a tab stop; arrows make another one it
function walk(view, event) {
  const at = view.items.findIndex((parts) => parts.includes(document.activeElement));
  const to = target(event.key, at, view.items.length);
  if (at < 0 || to === null) return;
  event.preventDefault();
  const part = view.items[at].indexOf(document.activeElement);
  for (const one of view.items[at]) one.tabIndex = -1;
  for (const one of view.items[to]) one.tabIndex = 0;
  view.items[to][Math.min(part, view.items[to].length - 1)].focus();
}

function target(key, at, n) {
  if (key === "ArrowRight") return Math.min(n - 1, at + 1);
  if (key === "ArrowLeft") return Math.max(0, at - 1);
  if (key === "Home") return 0;
  return key === "End" ? n - 1 : null;
}

// --- one of them large ---

const dialog = find("frame-dialog");
let open = null; // {view, i}

function enlarge(view, i) {
  open = { view, i, mode: view.mode };
  refresh();
  if (!dialog.open) dialog.showModal();
}

function refresh() {
  const { view, i, mode } = open, frame = view.looks.frames[i];
  const title = view.titleOf(frame);
  find("frame-title").replaceChildren(nameOf(frame), title ? make("bdi", { class: "of" }, title) : "");
  find("frame-words").textContent = `${words(frame)[0].toUpperCase()}${words(frame).slice(1)}.`;
  find("frame-before").disabled = i === 0;
  find("frame-after").disabled = i === view.looks.frames.length - 1;
  find("frame-canvas").setAttribute("aria-label", `${nameOf(frame)}: ${words(frame)}`);
  paint(find("frame-canvas"), frame, mode, 896, true);
  const pick = Object.entries(MODES)
    .filter(([name]) => name !== "heat" || frame.heat)
    .map(([name, label]) =>
      make(
        "button",
        {
          type: "button",
          class: "quiet",
          "data-mode": name,
          "aria-pressed": String(name === mode),
          onclick: () => {
            open.mode = name;
            refresh();
            find("frame-acts").querySelector(`[data-mode=${name}]`).focus();
          },
        },
        label,
      ),
    );
  const go =
    frame.time === null || !view.canSeek(frame)
      ? ""
      : button(`Show ${timeOf(frame)} in the player`, "play", () => {
          dialog.close();
          view.seek(frame);
        });
  find("frame-acts").replaceChildren(...pick, go);
}

function step(by) {
  const { view, i } = open, next = Math.max(0, Math.min(view.looks.frames.length - 1, i + by));
  if (next === i) return;
  open.i = next;
  refresh();
  if (document.activeElement === document.body) find("frame-close").focus(); // a button that is off loses the focus
  say(`${nameOf(view.looks.frames[next])}: ${words(view.looks.frames[next])}`);
}

find("frame-before").addEventListener("click", () => step(-1));
find("frame-after").addEventListener("click", () => step(1));
find("frame-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") step(1);
  if (event.key === "ArrowLeft") step(-1);
});
