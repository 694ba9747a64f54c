// One question at a time: its clips are sent, it is asked, the answer taken in; stopped, waited for, tried again.

import * as api from "./api.js";
import * as shelf from "./clips.js";
import { clear, clipOf, mediaUpTo, request, taken, turns } from "./conversation.js";
import { find, say, show } from "./dom.js";
import { follow, settle } from "./follow.js";
import * as player from "./player.js";
import * as service from "./service.js";
import { Turn } from "./turns.js";

const WAIT = 3; // seconds until a busy service is asked again, where it names none
const KEPT = ["usage", "timings", "warnings", "toy", "looks"]; // of a chunk, whichever it comes with
let current = null; // {turn, abort}
const listeners = [];

export const onChange = (listener) => listeners.push(listener); // a question begins or ends
export const isBusy = () => current !== null;
export const stop = () => current?.abort.abort();

export async function ask(text) {
  for (const turn of turns) turn.fold();
  const turn = new Turn((turns.at(-1)?.number ?? 0) + 1, text.trim(), taken(), acts);
  turns.push(turn);
  show(find("welcome"), false);
  find("turns").append(turn.element);
  await run(turn);
}

export function forget() {
  stop();
  clear();
  show(find("welcome"), true);
}

async function run(turn) {
  const abort = new AbortController();
  current = { turn, abort };
  changed();
  follow(true);
  try {
    await sendClips(turn, abort.signal);
    turn.done(await answer(turn, abort.signal));
  } catch (error) {
    if (error.name === "AbortError") turn.stopped();
    else fail(turn, error);
  }
  current = null;
  changed();
  settle(turn.element);
}

function changed() {
  for (const listener of listeners) listener();
}

// --- on the way ---

const aborted = () => new DOMException("stopped", "AbortError");

// settles as the promise does, or when it is stopped
function unlessStopped(promise, signal) {
  const stopped = new Promise((_, reject) => signal.addEventListener("abort", () => reject(aborted()), { once: true }));
  return Promise.race([promise, stopped]);
}

async function sendClips(turn, signal) {
  for (const { clip } of mediaUpTo(turn)) {
    if (clip.id) continue;
    if (clip.state !== "sending") shelf.send(clip);
    const watch = setInterval(() => turn.progress.set("upload", clip.share, 1), 100);
    try {
      await unlessStopped(clip.upload, signal);
    } catch (error) {
      if (!clip.removed) throw error; // taken off the desk meanwhile: asked without it
    } finally {
      clearInterval(watch);
    }
  }
}

async function answer(turn, signal) {
  for (;;) {
    try {
      return await takeIn(turn, signal);
    } catch (error) {
      if (error.status !== 429 || turn.answer) throw error;
      await pause(turn, error.wait ?? WAIT, signal);
    }
  }
}

async function takeIn(turn, signal) {
  const found = { finish: null };
  for await (const chunk of api.ask(request(turn, service.modelName()), signal)) {
    const { prompt_progress: progress, choices: [choice] = [] } = chunk;
    if (progress && !turn.answer) turn.progress.set(progress.stage, progress.done, progress.total);
    if (choice?.delta?.content) turn.add(choice.delta.content);
    found.finish = choice?.finish_reason ?? found.finish;
    for (const key of KEPT) found[key] = chunk[key] ?? found[key];
    follow();
  }
  return found;
}

async function pause(turn, seconds, signal) {
  const n = Math.max(1, Math.ceil(seconds));
  say(`The service is busy. It is asked again in ${n} seconds`);
  for (let left = n; left > 0; left--) {
    turn.progress.wait(`The service is busy. Asking again in ${left} s`);
    await unlessStopped(new Promise((resolve) => setTimeout(resolve, 1000)), signal);
  }
  turn.progress.wait("Sent to the service");
}

function fail(turn, error) {
  turn.failed(api.titleOf(error), error.message);
  if (error.status === 401) service.wantKey();
  if (error.status === 404) for (const clip of shelf.clips) clip.id = null; // one that was started anew has no files
  if ([0, 503].includes(error.status)) service.look();
}

// --- what an answer can ask for ---

function put(clip, start, end = null) {
  if (shelf.current() !== clip) shelf.choose(clip);
  player.jump(start, end);
}

const videos = (turn) => mediaUpTo(turn).map(({ clip }) => clip).filter((clip) => clip.kind === "video");

const acts = {
  clipOf,
  retry(turn) {
    if (isBusy()) return;
    turn.begin();
    run(turn);
  },
  durationOf: (turn) => Math.max(0, ...videos(turn).map((clip) => clip.duration ?? Infinity)),
  jump(turn, start, end) { // in the clip on the screen, where the answer is about it
    const clips = videos(turn), clip = clips.includes(shelf.current()) ? shelf.current() : clips.at(-1);
    if (clip) put(clip, start, end);
  },
  seek: (turn, frame) => put(clipOf(turn, frame), frame.time),
};
