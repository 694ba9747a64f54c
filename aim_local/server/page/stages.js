// The way to the first word: live while it is gone, and as a bar of what each stage took when it is over.

import { make, say } from "./dom.js";
import { duration } from "./times.js";

// what the service calls a stage: what a person would
const STEPS = { upload: "Uploading", queue: "Waiting", decode_video: "Opening", vision: "Looking", prefill: "Reading" };
const STAGES = {
  queue: "Waiting",
  decode_video: "Opening the clip",
  preprocess: "Fitting frames",
  vision: "Looking",
  merge: "Putting together",
  importance: "Weighing",
  prefill: "Reading",
};
const TELL = 10000; // milliseconds between two words to a screen reader
const SHOWN = ["decode_video", "vision", "prefill"];

// --- live ---

export class Progress {
  constructor() {
    this.began = performance.now();
    this.steps = new Map();
    this.list = make("ul", { class: "steps" });
    this.clock = make("span", { class: "elapsed", "aria-hidden": "true" });
    this.note = make("p", { class: "hint" }, "Sent to the service");
    this.element = make(
      "div",
      { class: "progress" },
      this.list,
      make("div", { class: "underline" }, this.note, this.clock),
    );
    for (const name of SHOWN) this.#step(name);
    this.told = this.began;
    this.timer = setInterval(() => this.#tick(performance.now()), 100);
  }

  #tick(now) {
    this.clock.textContent = `${((now - this.began) / 1000).toFixed(1)} s`;
    if (now - this.told < TELL) return;
    this.told = now;
    say(this.note.textContent);
  }

  // done of total; a stage that begins ends those before it
  set(stage, done, total) {
    const at = this.#step(stage), share = total > 0 ? Math.min(1, done / total) : 0;
    at.element.classList.add("now");
    at.fill.style.transform = `scaleX(${share})`;
    this.note.textContent = this.#words(stage, done, total);
    if (share === 1) at.element.classList.add("done");
  }

  #words(stage, done, total) {
    if (stage === "upload") return `Uploading, ${Math.round((100 * done) / total)} %`;
    if (stage === "queue") return total > 0 ? `Waiting: ${total - done} before this one` : "Waiting for the one before";
    if (stage === "prefill") return `Reading, ${Math.round((100 * done) / total)} % of the prompt`;
    return `${STEPS[stage] ?? stage}, ${done} of ${total} ${total === 1 ? "frame" : "frames"}`;
  }

  #step(stage) {
    if (!this.steps.has(stage)) {
      const fill = make("i"), name = make("span", {}, STEPS[stage] ?? stage);
      const element = make("li", { class: stage }, name, make("span", { class: "track" }, fill));
      if (SHOWN.includes(stage)) this.list.append(element);
      else this.list.prepend(element);
      this.steps.set(stage, { element, fill });
    }
    return this.steps.get(stage);
  }

  wait(text) {
    this.note.textContent = text;
  }

  end() {
    clearInterval(this.timer);
    this.element.remove();
  }
}

// --- afterwards ---

// timings: of the service. importance is part of prefill, so it is taken out of it here
function parts(timings) {
  const ms = (name) => Math.max(0, timings[`${name}_ms`] ?? 0);
  const all = Object.keys(STAGES).map((name) => [
    name,
    name === "prefill" ? Math.max(0, ms("prefill") - ms("importance")) : ms(name),
  ]);
  return all.filter(([name, took]) => took >= (name === "queue" ? 20 : 0.5)); // nobody notices a shorter wait
}

// null where the service gave no times
export function bar(timings) {
  if (!timings?.ttft_ms) return null;
  const found = parts(timings), sum = found.reduce((total, [, took]) => total + took, 0);
  const total = timings.ttft_ms + (timings.queue_ms ?? 0);
  const rest = total - sum;
  if (rest > total * 0.02) found.push(["other", rest]);
  const segments = found.map(([name, took]) => {
    const segment = make("i", { class: name });
    segment.style.flexGrow = took;
    return segment;
  });
  const names = found.map(([name, took]) =>
    make(
      "li",
      {},
      make("i", { class: name, "aria-hidden": "true" }),
      make("span", {}, STAGES[name] ?? "Everything else"),
      make("b", {}, duration(took)),
    ),
  );
  const beside =
    sum > total * 1.02
      ? make("p", { class: "hint" }, "A clip is opened while it is looked at, so the stages add up to more.")
      : "";
  const head = make("p", { class: "fact" }, "First word after ", make("b", {}, duration(total)));
  return make(
    "section",
    { class: "stages", "aria-label": "Time to the first word" },
    head,
    make("div", { class: "bar", "aria-hidden": "true" }, ...segments),
    make("ul", { class: "legend" }, ...names),
    beside,
  );
}

// what went in and what came out: "129 -> 33 visual tokens", null where nothing was counted
export function tokens(usage, timings) {
  const details = usage?.prompt_tokens_details ?? {},
    full = details.visual_tokens_full,
    kept = details.visual_tokens;
  const facts = [];
  if (full)
    facts.push(
      make(
        "li",
        {},
        make("b", {}, full === kept ? String(kept) : `${full} \u2192 ${kept}`),
        " visual tokens",
        gauge(kept / full),
      ),
    );
  if (usage?.prompt_tokens)
    facts.push(
      make(
        "li",
        {},
        make("b", {}, String(usage.prompt_tokens)),
        " tokens read",
        details.cached_tokens ? `, ${details.cached_tokens} known from before` : "",
      ),
    );
  if (usage?.completion_tokens)
    facts.push(make("li", {}, make("b", {}, String(usage.completion_tokens)), " tokens said", rate(timings)));
  return facts.length ? make("ul", { class: "facts", "aria-label": "Tokens" }, ...facts) : null;
}

function gauge(share) {
  const fill = make("i");
  fill.style.transform = `scaleX(${Math.min(1, share)})`;
  return make("span", { class: "gauge", "aria-hidden": "true" }, fill);
}

const rate = (timings) =>
  timings?.predicted_per_second > 0 ? `, ${Math.round(timings.predicted_per_second)} a second` : "";
