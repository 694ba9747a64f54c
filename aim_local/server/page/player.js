// The screen: one clip or picture, its line of time, and the part of it that is asked about. Knows no service.

import { find, icon, show } from "./dom.js";
import { clock, spoken } from "./times.js";

const video = find("video"),
  picture = find("picture"),
  seek = find("seek");
let clip = null,
  until = null;

// --- what is shown ---

export function put(next) {
  if (clip === next) return refresh();
  clip = next;
  until = null;
  video.pause();
  const plays = clip?.kind === "video";
  if (plays) video.src = clip.url;
  else if (video.hasAttribute("src")) {
    video.removeAttribute("src");
    video.load();
  }
  if (clip?.kind === "picture") picture.src = clip.url;
  else picture.removeAttribute("src");
  picture.alt = clip ? clip.name : "";
  refresh();
}

export function refresh() {
  const kind = clip?.kind, plays = kind === "video";
  show(video, plays);
  show(picture, kind === "picture");
  show(find("unplayable"), kind === "unplayable" && clip.state !== "failed");
  show(find("controls"), plays);
  video.setAttribute("aria-label", clip ? `The clip ${clip.name}` : "The clip");
  drawSpan();
  drawTicks();
  moved();
}

// --- time ---

export const length = () => (Number.isFinite(video.duration) ? video.duration : 0);

export const position = () => video.currentTime;

function moved() {
  const at = video.currentTime, all = length();
  if (until !== null && at >= until) {
    const end = until;
    until = null;
    video.pause();
    video.currentTime = end; // it is told of the time a few times a second only
  }
  seek.max = all || 1;
  seek.value = at;
  seek.style.setProperty("--share", all ? at / all : 0);
  seek.setAttribute("aria-valuetext", `${spoken(at)} of ${spoken(all)}`);
  find("at").textContent = `${clock(at, all < 60)} / ${clock(all, all < 60)}`;
}

function drawPlay() {
  const name = video.paused ? "Play" : "Pause";
  find("play").setAttribute("aria-label", name);
  find("play").replaceChildren(icon(name.toLowerCase()));
}

function toggle() {
  until = null;
  if (video.paused)
    video.play().catch(() => {}); // a new source may come in between
  else video.pause();
}

// to a moment, which is shown as a still; again to the same one plays from there. A span is played to its end
export function jump(start, end = null) {
  const there = Math.abs(video.currentTime - start) < 0.05;
  if (end === null && there) return toggle();
  until = end;
  video.currentTime = Math.min(start, length() || start);
  if (end !== null) video.play().catch(() => {});
  else video.pause();
  moved();
}

// --- marks on the line ---

let ticks = [];

export function mark(times) {
  // seconds of the frames that were read of this clip
  ticks = times;
  drawTicks();
}

function drawTicks() {
  const all = length();
  find("ticks").replaceChildren(
    ...(all ? ticks : []).map((time) => {
      const tick = document.createElement("i");
      tick.style.insetInlineStart = `${(100 * time) / all}%`;
      return tick;
    }),
  );
}

function drawSpan() {
  const all = length(), span = find("span");
  const cut = Boolean(clip && all && (clip.start !== null || clip.end !== null));
  show(span, cut);
  if (!cut) return;
  span.style.insetInlineStart = `${(100 * (clip.start ?? 0)) / all}%`;
  span.style.insetInlineEnd = `${100 - (100 * (clip.end ?? all)) / all}%`;
}

// --- wiring ---

video.addEventListener("loadedmetadata", () => {
  if (video.duration === Infinity) video.currentTime = 1e7; // a recording without its length: the end tells it
  refresh();
});
video.addEventListener("durationchange", () => {
  if (Number.isFinite(video.duration) && video.currentTime >= video.duration) video.currentTime = 0;
  refresh();
});
video.addEventListener("timeupdate", moved);
video.addEventListener("seeked", moved);
video.addEventListener("volumechange", () => {
  find("mute").setAttribute("aria-pressed", String(video.muted));
  find("mute").replaceChildren(icon(video.muted ? "mute" : "sound"));
});
for (const type of ["play", "pause", "ended"]) video.addEventListener(type, drawPlay);
video.addEventListener("click", toggle);
find("play").addEventListener("click", toggle);
seek.addEventListener("input", () => {
  until = null;
  video.currentTime = Number(seek.value);
});
find("mute").addEventListener("click", () => {
  video.muted = !video.muted;
});
find("mute").setAttribute("aria-pressed", "false");
find("mute").setAttribute("aria-label", "Mute");
find("full").addEventListener("click", () =>
  find("screen")
    .requestFullscreen?.()
    .catch(() => {}),
);
show(find("full"), Boolean(document.fullscreenEnabled));
