// One question and its answer on the page: text as it comes, times as buttons, what it was made from, what went wrong.

import { button, find, icon, make, say } from "./dom.js";
import { strip } from "./frames.js";
import { rangeText } from "./reading.js";
import { bar, Progress, tokens } from "./stages.js";
import { findTimes } from "./times.js";

// Models write Markdown; of that, what can be told line by line: headings, items, **strong** and `code`
const LINES = [
  [/^#{1,6}\s+/, "head"],
  [/^\s*[-*\u2022]\s+/, "item"],
  [/^(?=\s*\d{1,2}[.)]\s)/, "numbered"],
];

function lineKind(line) {
  // [characters of its mark, class]
  for (const [form, kind] of LINES) {
    const found = form.exec(line);
    if (found) return [found[0].length, kind];
  }
  return [0, ""];
}

const INLINE = /(\*\*[^*]+\*\*)|(`[^`]+`)/;

function* inline(line) {
  // [tag, text], "" for plain text
  for (const part of line.split(INLINE)) {
    if (part === undefined || part === "") continue;
    if (part.startsWith("**") && part.length > 4 && part.endsWith("**")) yield ["strong", part.slice(2, -2)];
    else if (part.startsWith("`") && part.length > 2 && part.endsWith("`")) yield ["code", part.slice(1, -1)];
    else yield ["", part];
  }
}

// Text that grows. Each line is an element with a direction of its own; only the last one is drawn again
class TimedText {
  constructor(parent, durationOf, jump) {
    Object.assign(this, { parent, durationOf, jump, text: "", line: "" });
    this.#open();
  }

  push(more) {
    this.text += more;
    const lines = more.split("\n");
    for (let i = 0; i < lines.length; i++) {
      if (i > 0) this.#open();
      this.line += lines[i];
      if (lines[i]) this.#draw(i === lines.length - 1);
    }
  }

  end() {
    this.#draw(false);
    while (this.parent.lastChild?.textContent === "") this.parent.lastChild.remove();
  }

  #open() {
    if (this.element) this.#draw(false);
    this.line = "";
    this.element = make("p", { dir: "auto" });
    this.parent.append(this.element);
  }

  #draw(growing) {
    const [mark, kind] = lineKind(this.line);
    this.element.className = kind;
    const had = [...this.element.querySelectorAll("button")].indexOf(document.activeElement);
    const parts = [...inline(this.line.slice(mark))];
    this.element.replaceChildren(
      ...parts.flatMap(([tag, text], i) => {
        if (tag) return [make(tag, {}, ...this.#times(text, false))];
        return this.#times(text, growing && i === parts.length - 1);
      }),
    );
    if (had >= 0) this.element.querySelectorAll("button")[had]?.focus();
  }

  #times(text, growing) {
    const parts = [];
    let at = 0;
    for (const { from, to, start, end } of findTimes(text, this.durationOf())) {
      if (growing && to === text.length) break; // "0:1" may become "0:12"
      const time = text.slice(from, to);
      parts.push(
        text.slice(at, from),
        make(
          "button",
          { type: "button", class: "time", "aria-label": `Jump to ${time}`, onclick: () => this.jump(start, end) },
          icon("play"),
          time,
        ),
      );
      at = to;
    }
    return [...parts, text.slice(at)].filter((part) => part !== "");
  }
}

export class Turn {
  // media: [{clip, sampling, start, end}]. acts: {retry(turn), jump(turn, start, end), durationOf(turn),
  // seek(turn, frame), clipOf(turn, frame)}
  constructor(number, question, media, acts) {
    Object.assign(this, { number, question, media, acts, answer: "", state: "asking" });
    this.body = make("div", { class: "said" });
    this.element = make("article", { class: "turn", "aria-label": `Question ${number}` }, this.#asked(), this.body);
    this.begin();
  }

  #asked() {
    const chips = this.media.map(({ clip, start, end }) =>
      make(
        "li",
        {},
        make("bdi", {}, clip.name),
        start != null || end != null ? `, ${rangeText({ start, end }).toLowerCase()}` : "",
      ),
    );
    return make(
      "div",
      { class: "asked" },
      make("p", { dir: "auto" }, this.question),
      chips.length ? make("ul", { class: "went", "aria-label": "With it" }, ...chips) : "",
    );
  }

  begin() {
    this.state = "asking";
    this.looks = null;
    this.answer = "";
    this.progress = new Progress();
    this.text = make("div", { class: "text" });
    this.timed = new TimedText(
      this.text,
      () => this.acts.durationOf(this),
      (start, end) => this.acts.jump(this, start, end),
    );
    this.body.replaceChildren(this.progress.element);
  }

  add(text) {
    if (!this.answer) {
      this.progress.end();
      this.body.replaceChildren(this.text);
      this.text.classList.add("growing");
    }
    this.answer += text;
    this.timed.push(text);
  }

  #close(state) {
    this.state = state;
    this.progress.end();
    this.timed.end();
    this.text.classList.remove("growing");
    this.body.replaceChildren(...(this.answer ? [this.text] : []));
  }

  // found: {usage, timings, warnings, toy, looks, finish}
  done(found) {
    this.#close("done");
    if (!this.answer) this.body.append(make("p", { class: "note" }, "The model said nothing."));
    if (found.finish === "length") this.#note("alert", "The answer reached its longest length and was cut there.");
    this.#warnings(found);
    this.#tools();
    this.#evidence(found);
    say(`Answer: ${this.answer}`);
  }

  stopped() {
    this.#close("stopped");
    this.#note("stop", this.answer ? "Stopped here." : "Stopped before the first word.");
    this.#tools();
    say("Stopped");
  }

  // title, message: plain words. acts: buttons
  failed(title, message, ...more) {
    this.#close("failed");
    const again = button("Try again", "again", () => this.acts.retry(this));
    this.body.append(
      make(
        "div",
        { class: "failure" },
        icon("alert"),
        make(
          "div",
          {},
          make("p", { class: "title" }, title),
          make("p", { dir: "auto" }, message),
          make("div", { class: "row" }, again, ...more),
        ),
      ),
    );
    say(`${title}. ${message}`);
  }

  #note(iconName, text, kind = "note") {
    this.body.append(make("p", { class: kind }, icon(iconName), make("span", { dir: "auto" }, text)));
  }

  #warnings({ warnings = [], toy = false }) {
    if (toy && !warnings.length)
      this.#note(
        "toy",
        "This is the bundled toy model, and this clip is none of its own: the answer means nothing.",
        "note toy",
      );
    for (const warning of warnings) this.#note(toy ? "toy" : "alert", warning, toy ? "note toy" : "note");
  }

  #tools() {
    const copy = button("Copy", "copy", async () => {
      const copied = await put(this.answer);
      copy.replaceChildren(icon(copied ? "check" : "alert"), make("span", {}, copied ? "Copied" : "Not copied"));
      say(copied ? "Copied" : "Not copied");
    });
    const again = button("Ask again", "again", () => this.acts.retry(this));
    this.body.append(make("div", { class: "tools" }, this.answer ? copy : "", again));
  }

  #evidence({ usage, timings, looks }) {
    const facts = tokens(usage, timings), times = bar(timings);
    const frames = looks?.frames?.length
      ? strip(looks, {
          seek: (frame) => this.acts.seek(this, frame),
          canSeek: (frame) => this.acts.clipOf(this, frame)?.kind === "video",
          titleOf: (frame) => this.acts.clipOf(this, frame)?.name ?? "",
        })
      : null;
    if (!facts && !times && !frames) return;
    const summary = make("summary", {}, make("span", {}, looks ? looks.summary : "How it got there"));
    this.evidence = make("details", { class: "evidence", open: true }, summary, frames, times, facts);
    this.body.append(this.evidence);
    this.looks = looks;
  }

  fold() {
    // the next question is asked
    if (this.evidence) this.evidence.open = false;
  }
}

// to the clipboard; pages of other machines over plain http may only copy what is marked
async function put(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { class: "spoken-only", "aria-hidden": "true" });
    area.value = text;
    const had = document.activeElement;
    find("turns").append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    had?.focus();
    return copied;
  }
}
