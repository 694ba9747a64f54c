// The page as a whole: what is on the desk, what was said, and what the service is doing.

import * as api from "./api.js";
import * as shelf from "./clips.js";
import { find, icon, make, say, show } from "./dom.js";
import * as player from "./player.js";
import * as reading from "./reading.js";
import { Turn } from "./turns.js";

const IDEAS = ["What happens in this clip?", "When does something change?", "Describe it in one sentence."];
const WAIT = 3, PATIENCE = 3; // seconds: between two tries where the service names none, between two looks at its health
const state = { model: null, turns: [], turn: null, abort: null };
const question = find("question");

// --- the service ---

const STATES = { ok: "ready", loading: "loading its model", stopping: "stopping", unreachable: "not reachable", key: "wants a key" };
let watching = 0;

function showState(name) {
  const text = STATES[name] ?? name;
  if (find("state").textContent !== text) {
    find("state").textContent = text;
    if (name !== "ok") say(`The service is ${text}`);
  }
  find("light").className = `light ${name}`;
}

async function connect() {
  clearTimeout(watching);
  try {
    state.model = await api.model();
    find("model-name").textContent = state.model.id;
    reading.setModel(state.model.meta);
    showState("ok");
    noVision();
  } catch (error) {
    if (error.status === 401) return wantKey();
    showState(await api.health());
    watching = setTimeout(connect, 1000 * PATIENCE);
  }
}

function noVision() {
  if (state.model.meta?.vision !== false) return;
  find("landing").replaceChildren(make("p", { class: "headline" }, "This model cannot see."), make("p", { class: "sub" }, "It answers questions in text; clips and pictures are refused."));
}

// --- the key ---

function wantKey() {
  showState("key");
  show(find("key-wrong"), api.hasKey());
  if (!find("key-dialog").open) find("key-dialog").showModal();
}

find("key-form").addEventListener("submit", () => {
  api.setKey(find("key").value.trim());
  find("key").value = "";
  connect().then(() => {
    for (const clip of shelf.clips) if (clip.state === "failed") shelf.send(clip);
  });
});
find("key-later").addEventListener("click", () => find("key-dialog").close());

// --- the desk ---

// how a clip would be read now, and whether the conversation has it like that
const reads = (clip) => JSON.stringify(reading.sampling(clip));
const answered = () => state.turns.filter((turn) => turn.answer && turn.state !== "failed");
const known = (clip) => answered().some((turn) => turn.media.some((item) => item.clip === clip && item.reads === reads(clip)));
const pending = () => shelf.clips.filter((clip) => clip.state !== "failed" && !known(clip));

function desk() {
  const clip = shelf.current();
  player.put(clip);
  show(find("upload-error"), clip?.state === "failed");
  find("upload-error").textContent = clip?.error?.message ?? "";
  show(find("viewer"), shelf.clips.length > 0);
  show(find("landing"), shelf.clips.length === 0);
  show(find("reading"), shelf.clips.length > 0);
  document.body.classList.toggle("has-clips", shelf.clips.length > 0);
  reading.draw();
  drawWith();
  mark();
}

function drawWith() {
  const items = answered().length ? pending() : []; // with the first question it is plain
  show(find("with"), items.length > 0);
  find("with").replaceChildren(...items.map((clip) => make("li", {}, make("bdi", {}, clip.name), ` goes with it, ${reading.rangeText(clip, "whole").toLowerCase()}`)));
}

function take(files) {
  if (files.length) shelf.add(files);
}

shelf.onChange(desk);
find("reading").addEventListener("input", drawWith);
for (const id of ["choose", "attach"]) find(id).addEventListener("click", () => find("files").click());
find("files").addEventListener("change", () => {
  take([...find("files").files]);
  find("files").value = "";
  if (matchMedia("(pointer: fine)").matches) question.focus({ preventScroll: true }); // a phone would open its keyboard
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  take(files);
});

let depth = 0; // dragenter and dragleave come for every element on the way
const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const veil = (on) => {
  depth = on ? depth : 0;
  show(find("veil"), on);
};
document.addEventListener("dragenter", (event) => {
  if (!carries(event)) return;
  event.preventDefault();
  depth++;
  veil(true);
});
document.addEventListener("dragleave", () => {
  depth = Math.max(0, depth - 1);
  if (!depth) veil(false);
});
document.addEventListener("dragover", (event) => carries(event) && event.preventDefault());
document.addEventListener("drop", (event) => {
  if (!carries(event)) return;
  event.preventDefault();
  veil(false);
  take([...event.dataTransfer.files]);
});

// --- asking ---

function parts(turn) {
  const media = turn.media.filter(({ clip }) => !clip.removed).map(({ clip, sampling }) => ({ type: "file", file: { file_id: clip.id }, ...sampling }));
  return media.length ? [...media, { type: "text", text: turn.question }] : turn.question;
}

function request(turn) {
  const before = answered().filter((other) => other !== turn && other.number < turn.number);
  const messages = before.flatMap((other) => [{ role: "user", content: parts(other) }, { role: "assistant", content: other.answer }]);
  return {
    model: state.model?.id ?? "default",
    messages: [...messages, { role: "user", content: parts(turn) }],
    stream: true, stream_options: { include_usage: true }, return_progress: true, return_looks: true,
    visual_tokens: reading.visualTokens(),
  };
}

// the media of the whole conversation up to a turn, in the order in which the service counts them
const mediaUpTo = (turn) => [...answered().filter((other) => other !== turn && other.number < turn.number), turn].flatMap((other) => other.media.filter(({ clip }) => !clip.removed));

async function ask(text) {
  if (state.turn || !text.trim()) return;
  for (const turn of state.turns) turn.fold();
  const media = pending().map((clip) => ({ clip, sampling: reading.sampling(clip), reads: reads(clip), start: clip.start, end: clip.end }));
  const turn = new Turn((state.turns.at(-1)?.number ?? 0) + 1, text.trim(), media, acts);
  state.turns.push(turn);
  show(find("welcome"), false);
  find("turns").append(turn.element);
  await run(turn);
}

async function run(turn) {
  state.turn = turn;
  state.abort = new AbortController();
  busy(true);
  follow(true);
  try {
    await uploads(turn, state.abort.signal);
    await stream(turn, state.abort.signal);
  } catch (error) {
    if (error.name === "AbortError") turn.stopped();
    else fail(turn, error);
  }
  state.turn = null;
  busy(false);
  drawWith();
  settle(turn);
}

async function uploads(turn, signal) {
  for (const { clip } of mediaUpTo(turn)) {
    if (clip.id) continue;
    if (clip.state !== "sending") shelf.send(clip);
    const watch = setInterval(() => turn.progress.set("upload", clip.share, 1), 100);
    const stopped = new Promise((_, reject) => signal.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError"))));
    try {
      await Promise.race([clip.upload, stopped]);
    } catch (error) {
      if (!clip.removed) throw error; // taken off the desk meanwhile: asked without it
    } finally {
      clearInterval(watch);
    }
  }
}

async function stream(turn, signal) {
  for (;;) {
    try {
      return await take_in(turn, signal);
    } catch (error) {
      if (error.status !== 429 || turn.answer) throw error;
      await pause(turn, error.wait ?? WAIT, signal);
    }
  }
}

async function take_in(turn, signal) {
  const found = { finish: null };
  for await (const chunk of api.ask(request(turn), signal)) {
    const choice = chunk.choices?.[0], progress = chunk.prompt_progress;
    if (progress && !turn.answer) turn.progress.set(progress.stage, progress.done, progress.total);
    if (choice?.delta?.content) turn.add(choice.delta.content);
    if (choice?.finish_reason) found.finish = choice.finish_reason;
    for (const key of ["usage", "timings", "warnings", "toy", "looks"]) if (chunk[key] !== undefined && chunk[key] !== null) found[key] = chunk[key];
    follow();
  }
  turn.done(found);
  mark();
}

// on the line of time: the frames of the clip on the screen that the last answer was made from
function mark() {
  const turn = state.turns.findLast((one) => one.looks), clip = shelf.current();
  const media = turn ? mediaUpTo(turn) : [];
  player.mark((turn?.looks.frames ?? []).filter((frame) => frame.time !== null && media[frame.media]?.clip === clip).map((frame) => frame.time));
}

function pause(turn, seconds, signal) {
  return new Promise((resolve, reject) => {
    let left = Math.max(1, Math.ceil(seconds));
    say(`The service is busy. It is asked again in ${left} seconds`);
    const tell = () => turn.progress.wait(`The service is busy. Asking again in ${left} s`);
    tell();
    const timer = setInterval(() => {
      left -= 1;
      if (left > 0) return tell();
      clearInterval(timer);
      turn.progress.wait("Sent to the service");
      resolve();
    }, 1000);
    signal.addEventListener("abort", () => {
      clearInterval(timer);
      reject(new DOMException("stopped", "AbortError"));
    }, { once: true });
  });
}

async function fail(turn, error) {
  turn.failed(api.titleOf(error), error.message);
  if (error.status === 401) return wantKey();
  if (error.status === 404) for (const clip of shelf.clips) clip.id = null; // a service that was started anew has no files
  if ([0, 503].includes(error.status)) {
    showState(await api.health());
    watching = setTimeout(connect, 1000 * PATIENCE);
  }
}

const acts = {
  retry: (turn) => {
    if (state.turn) return;
    turn.begin();
    run(turn);
  },
  durationOf: (turn) => Math.max(0, ...mediaUpTo(turn).map(({ clip }) => (clip.kind === "video" ? clip.duration ?? Infinity : 0))),
  jump: (turn, start, end) => {
    const plays = mediaUpTo(turn).map(({ clip }) => clip).filter((clip) => clip.kind === "video");
    const clip = plays.includes(shelf.current()) ? shelf.current() : plays.at(-1);
    if (clip) to(clip, start, end);
  },
  seek: (turn, frame) => {
    const clip = mediaUpTo(turn)[frame.media]?.clip;
    if (clip?.kind === "video") to(clip, frame.time);
  },
  clipOf: (turn, frame) => mediaUpTo(turn)[frame.media]?.clip,
};

function to(clip, start, end = null) {
  if (shelf.current() !== clip) shelf.choose(clip);
  player.jump(start, end);
}

// --- the composer ---

function busy(on) {
  find("send").setAttribute("aria-label", on ? "Stop" : "Ask");
  find("send").classList.toggle("stop", on);
  find("send").replaceChildren(icon(on ? "stop" : "send"));
  show(find("new-chat"), state.turns.length > 0);
}

function stop() {
  state.abort?.abort();
}

function submit() {
  if (state.turn) return stop();
  const text = question.value;
  if (!text.trim()) return question.focus();
  question.value = "";
  fit();
  ask(text);
}

function fit() { // as high as its text, up to what the style allows
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
question.addEventListener("input", fit);
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!state.turn) submit(); // stopping is Esc's
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.turn && !document.querySelector("dialog[open]")) stop();
});
find("new-chat").addEventListener("click", () => {
  stop();
  for (const turn of state.turns) turn.element.remove();
  state.turns = [];
  show(find("welcome"), true);
  show(find("new-chat"), false);
  desk();
  question.focus();
  say("New chat");
});
for (const idea of IDEAS) find("ideas").append(make("li", {}, make("button", { type: "button", class: "idea", onclick: () => begin(idea) }, idea)));

function begin(idea) { // without a clip there is nothing to ask about yet
  if (shelf.clips.length) return ask(idea);
  question.value = idea;
  question.focus();
}

// --- scrolling: with the answer, unless the reader went up ---

const wide = matchMedia("(min-width: 60rem)");
const scroller = () => (wide.matches ? find("turns") : document.scrollingElement);

let following = true;
const leave = () => { following = false; };
document.addEventListener("wheel", (event) => event.deltaY < 0 && leave(), { passive: true });
document.addEventListener("touchmove", leave, { passive: true });
document.addEventListener("keydown", (event) => ["PageUp", "ArrowUp", "Home"].includes(event.key) && event.target !== question && leave());
for (const target of [find("turns"), document]) {
  target.addEventListener("scroll", () => {
    const { scrollTop, scrollHeight, clientHeight } = scroller();
    if (scrollHeight - scrollTop - clientHeight < 40) following = true;
  }, { passive: true });
}

// what was said stays in sight, also where what it was made from is taller than the screen
function settle(turn) {
  if (following) turn.element.scrollIntoView({ block: "start" });
}

function follow(always = false) {
  if (always) following = true;
  if (following) scroller().scrollTop = scroller().scrollHeight;
}

find("reading").open = wide.matches;
desk();
connect();
