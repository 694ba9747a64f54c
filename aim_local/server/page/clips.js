// Clips and pictures on the desk: looked into, uploaded once, shown as a row to choose from, removed.

import * as api from "./api.js";
import { button, find, icon, make, say } from "./dom.js";
import { clock } from "./times.js";

// kind: "video" (plays here), "picture", "unplayable". id: of the uploaded file, null until then. start, end: seconds,
// null for the clip's own. state: "sending", "there", "failed"
export const clips = [];
let chosen = null;
let count = 0;
const listeners = [];

export const onChange = (listener) => listeners.push(listener);
export const current = () => chosen;

function changed() {
  drawShelf();
  for (const listener of listeners) listener();
}

export function choose(clip) {
  chosen = clip;
  changed();
}

export function change(clip, values) {
  Object.assign(clip, values);
  changed();
}

// --- coming and going ---

export function add(files) {
  for (const file of files) {
    const clip = {
      key: `clip${++count}`,
      file,
      name: file.name || "pasted",
      url: URL.createObjectURL(file),
      kind: "video",
      duration: null,
      thumb: null,
      id: null,
      state: "sending",
      share: 0,
      error: null,
      start: null,
      end: null,
      removed: false,
      upload: null,
    };
    clips.push(clip);
    look(clip);
    send(clip);
  }
  chosen = clips.at(-files.length);
  changed();
}

export function send(clip) {
  // a promise of the id; rejects where it fails
  const cancel = new AbortController();
  Object.assign(clip, { state: "sending", share: 0, error: null, id: null, cancel });
  const progress = (share) => {
    clip.share = share;
    drawShare(clip);
  };
  clip.upload = api.upload(clip.file, progress, cancel.signal).then((id) => {
    if (clip.removed) return api.remove(id).catch(() => {}); // it arrived while it was taken away
    Object.assign(clip, { id, state: "there", share: 1 });
    say(`${clip.name} is there`);
    changed();
    return id;
  });
  clip.upload.catch((error) => {
    if (clip.removed) return;
    Object.assign(clip, { state: "failed", error });
    say(`${clip.name}: ${error.message}`);
    chosen = clip; // so that the reason is seen
    changed();
  });
}

export function remove(clip) {
  clip.removed = true;
  clip.cancel.abort();
  if (clip.id) api.remove(clip.id).catch(() => {}); // the service forgets it in time anyway
  const at = clips.indexOf(clip);
  clips.splice(at, 1);
  if (chosen === clip) chosen = clips[Math.min(at, clips.length - 1)] ?? null;
  say(`${clip.name} removed`);
  changed();
  // where the focus was is gone
  (find("shelf").querySelector(`[data-part="pick ${chosen?.key}"]`) ?? find("choose")).focus();
  URL.revokeObjectURL(clip.url); // after the player has let go of it
}

addEventListener("pagehide", (event) => {
  if (event.persisted) return; // it may come back
  for (const { id } of clips) if (id) api.remove(id).catch(() => {});
});

// --- what it is: the browser is asked, not the name ---

function look(clip) {
  if (clip.file.type.startsWith("image/")) {
    clip.kind = "picture";
    const probe = new Image();
    probe.onload = () => keepThumb(clip, probe, probe.naturalWidth, probe.naturalHeight);
    probe.onerror = () => change(clip, { kind: "unplayable" });
    probe.src = clip.url;
    return;
  }
  const probe = document.createElement("video");
  probe.muted = true;
  probe.preload = "auto";
  probe.onloadedmetadata = () => {
    clip.duration = Number.isFinite(probe.duration) ? probe.duration : null;
    if (!probe.videoWidth) return change(clip, { kind: "unplayable" }); // sound only, or pictures it cannot decode
    probe.currentTime = clip.duration ? clip.duration * 0.4 : 0;
    changed();
  };
  probe.onseeked = () => {
    keepThumb(clip, probe, probe.videoWidth, probe.videoHeight);
    probe.removeAttribute("src");
    probe.load();
  };
  probe.onerror = () => clip.thumb || change(clip, { kind: "unplayable" });
  probe.src = clip.url;
}

function keepThumb(clip, source, width, height) {
  const canvas = make("canvas", { width: 112, height: 80, "aria-hidden": "true" });
  const scale = Math.max(112 / width, 80 / height),
    w = width * scale,
    h = height * scale;
  canvas.getContext("2d").drawImage(source, (112 - w) / 2, (80 - h) / 2, w, h);
  change(clip, { thumb: canvas });
}

// --- the row ---

function drawShelf() {
  const focused = document.activeElement?.dataset?.part;
  find("shelf").replaceChildren(...clips.map(card));
  if (focused) find("shelf").querySelector(`[data-part="${focused}"]`)?.focus();
}

function about(clip) {
  if (clip.state === "failed") return "not uploaded";
  if (clip.state === "sending") return `uploading ${Math.round(100 * clip.share)} %`;
  if (clip.kind === "picture") return "picture";
  return clip.duration ? clock(clip.duration, clip.duration < 10) : "clip";
}

function card(clip) {
  const on = clip === chosen;
  const thumb = clip.thumb ? clone(clip.thumb) : make("span", { class: "blank" }, icon("aim"));
  const words = make(
    "span",
    { class: "words" },
    make("bdi", { class: "name" }, clip.name),
    make("span", { class: "about" }, about(clip)),
  );
  const pick = make(
    "button",
    {
      type: "button",
      class: "pick",
      "aria-pressed": String(on),
      "data-part": `pick ${clip.key}`,
      onclick: () => choose(clip),
    },
    thumb,
    words,
  );
  const gone = button(
    clip.state === "sending" ? `Cancel the upload of ${clip.name}` : `Remove ${clip.name}`,
    "close",
    () => remove(clip),
    { bare: true, kind: "round tiny" },
  );
  gone.dataset.part = `gone ${clip.key}`;
  const item = make("li", { class: `card ${clip.state}${on ? " on" : ""}` }, pick);
  if (clip.state === "failed")
    item.append(
      button(
        `Upload ${clip.name} again`,
        "again",
        () => {
          send(clip);
          changed();
        },
        { bare: true, kind: "round tiny" },
      ),
    );
  item.append(gone);
  if (clip.state === "sending")
    item.append(make("progress", { max: 1, value: clip.share, "aria-label": `Upload of ${clip.name}` }));
  return item;
}

function clone(canvas) {
  const copy = make("canvas", { width: canvas.width, height: canvas.height, "aria-hidden": "true" });
  copy.getContext("2d").drawImage(canvas, 0, 0);
  return copy;
}

function drawShare(clip) {
  const item = find("shelf").children[clips.indexOf(clip)];
  const bar = item?.querySelector("progress");
  if (!bar) return;
  bar.value = clip.share;
  item.querySelector(".about").textContent = about(clip);
}
