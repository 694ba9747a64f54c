// The desk: clips come in by hand, and everything around the one that is chosen shows what is known of it.

import * as shelf from "./clips.js";
import { clipOf, answered, pending, turns } from "./conversation.js";
import { find, make, show } from "./dom.js";
import * as player from "./player.js";
import * as reading from "./reading.js";

export function draw() {
  const clip = shelf.current(), any = shelf.clips.length > 0;
  player.put(clip);
  for (const name of ["viewer", "reading"]) show(find(name), any);
  show(find("landing"), !any);
  show(find("upload-error"), clip?.state === "failed");
  find("upload-error").textContent = clip?.error?.message ?? "";
  reading.draw();
  drawPending();
  drawTicks();
}

// what goes with the next question; with the first one it is plain
function drawPending() {
  const clips = answered().length ? pending() : [];
  const words = (clip) => ` goes with it, ${reading.rangeText(clip, "whole").toLowerCase()}`;
  show(find("with"), clips.length > 0);
  find("with").replaceChildren(...clips.map((clip) => make("li", {}, make("bdi", {}, clip.name), words(clip))));
}

// the frames of this clip that the last answer was made from, on the line of time
function drawTicks() {
  const turn = turns.findLast((one) => one.looks), frames = turn?.looks.frames ?? [];
  const here = frames.filter((frame) => frame.time !== null && clipOf(turn, frame) === shelf.current());
  player.mark(here.map((frame) => frame.time));
}

// --- by hand ---

function take(files) {
  if (files.length) shelf.add(files);
}

for (const name of ["choose", "attach"]) find(name).addEventListener("click", () => find("files").click());
find("files").addEventListener("change", () => {
  take([...find("files").files]);
  find("files").value = "";
  // a phone would open its keyboard
  if (matchMedia("(pointer: fine)").matches) find("question").focus({ preventScroll: true });
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  take(files);
});

let depth = 0; // dragenter and dragleave come for every element on the way

function over(n) {
  depth = Math.max(0, n);
  show(find("veil"), depth > 0);
}

function dragged(type, act) {
  document.addEventListener(type, (event) => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault();
    act(event);
  });
}

dragged("dragenter", () => over(depth + 1));
dragged("dragleave", () => over(depth - 1));
dragged("dragover", () => {});
dragged("drop", (event) => {
  over(0);
  take([...event.dataTransfer.files]);
});

shelf.onChange(draw);
find("reading").addEventListener("input", drawPending);
