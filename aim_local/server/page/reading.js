// How clips are read: which part, how much of it, how many frames. What the controls say, as fields of a request.

import * as shelf from "./clips.js";
import { find, say, show } from "./dom.js";
import * as player from "./player.js";
import { clock } from "./times.js";

const share = find("share"), frames = find("frames");
let vision = { default_frames: null };

const budget = () => document.querySelector("input[name=budget]:checked").value;

export function visualTokens() {
  // the service's `visual_tokens`
  return budget() === "share" ? `budget=${Number(share.value) / 100}` : budget();
}

export function sampling(clip) {
  // of a clip's part; a picture has none
  if (clip.kind === "picture") return {};
  const n = Number.parseInt(frames.value, 10), found = {};
  if (n > 0) found.frames = n;
  if (clip.start !== null) found.start = clip.start;
  if (clip.end !== null) found.end = clip.end;
  return found;
}

export function setModel(meta) {
  vision = meta ?? vision;
  draw();
}

export function rangeText({ start, end }, whole = "The whole clip") {
  if (start == null && end == null) return whole;
  if (end == null) return `From ${clock(start, true)} to the end`;
  return `From ${clock(start ?? 0, true)} to ${clock(end, true)}`;
}

// --- words ---

function budgetText() {
  if (budget() === "auto") return "The runtime takes what suits this model and this clip.";
  if (budget() === "off") return "Every piece of every frame is read. Slowest, and nothing is lost.";
  const how = "pieces that look alike are put together, and what matters least is dropped";
  return `About ${share.value} % of the full work: ${how}.`;
}

export function draw() {
  const clip = shelf.current(), plays = clip?.kind === "video";
  const cut = Boolean(clip && (clip.start !== null || clip.end !== null));
  show(find("range"), plays);
  show(find("whole"), cut);
  if (clip) find("range-text").textContent = rangeText(clip);
  find("budget-text").textContent = budgetText();
  share.style.setProperty("--share", (share.value - share.min) / (share.max - share.min));
  share.setAttribute("aria-valuetext", `${share.value} percent of the full work`);
  share.closest(".slider").classList.toggle("idle", budget() !== "share");
  frames.placeholder = vision.default_frames ?? "auto";
  const much = { auto: "automatic", off: "everything", share: `${share.value} % budget` }[budget()];
  find("reading-brief").textContent = [
    much,
    frames.value && `${frames.value} frames`,
    cut && rangeText(clip).toLowerCase(),
  ]
    .filter(Boolean)
    .join(", ");
}

// --- wiring ---

function cut(values) {
  const clip = shelf.current();
  const next = { start: clip.start, end: clip.end, ...values };
  // the other end gives way, so that the last press always holds
  if (next.start !== null && next.end !== null && next.start >= next.end)
    next["start" in values ? "end" : "start"] = null;
  shelf.change(clip, next);
  player.refresh();
  say(rangeText(clip));
}

const here = () => Math.round(player.position() * 100) / 100;
find("from-here").addEventListener("click", () => cut({ start: here() || null }));
find("to-here").addEventListener("click", () => cut({ end: here() > 0 && here() < player.length() ? here() : null }));
find("whole").addEventListener("click", () => {
  cut({ start: null, end: null });
  find("from-here").focus();
});
for (const radio of document.querySelectorAll("input[name=budget]")) radio.addEventListener("change", draw);
share.addEventListener("input", () => {
  document.querySelector("input[name=budget][value=share]").checked = true;
  draw();
});
frames.addEventListener("input", draw);
frames.addEventListener("change", () => {
  const n = Math.round(Number(frames.value));
  frames.value = n > 0 ? n : "";
  draw();
});
