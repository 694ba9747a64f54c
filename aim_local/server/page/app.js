// The page as a whole: the line one asks on, and what holds the parts together.

import { ask, forget, isBusy, onChange, stop } from "./asking.js";
import { clips } from "./clips.js";
import { turns } from "./conversation.js";
import { draw } from "./desk.js";
import { find, icon, make, say, show } from "./dom.js";
import { isWide } from "./follow.js";
import { connect } from "./service.js";

const IDEAS = ["What happens in this clip?", "When does something change?", "Describe it in one sentence."];
const question = find("question");

// --- asking ---

function submit() {
  if (isBusy()) return stop();
  const text = question.value;
  if (!text.trim()) return question.focus();
  question.value = "";
  fit();
  ask(text);
}

function begin(idea) {
  if (clips.length && !isBusy()) return ask(idea);
  question.value = idea; // without a clip there is nothing to ask about yet
  question.focus();
}

function fit() { // as high as its text, up to what the style allows
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

onChange(() => {
  const busy = isBusy();
  find("send").setAttribute("aria-label", busy ? "Stop" : "Ask");
  find("send").classList.toggle("stop", busy);
  find("send").replaceChildren(icon(busy ? "stop" : "send"));
  show(find("new-chat"), turns.length > 0);
  draw();
});

// --- by hand ---

find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
question.addEventListener("input", fit);
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!isBusy()) submit(); // stopping is Esc's
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) stop();
});
find("new-chat").addEventListener("click", () => {
  forget();
  show(find("new-chat"), false);
  draw();
  question.focus();
  say("New chat");
});
for (const idea of IDEAS) {
  const button = make("button", { type: "button", class: "idea", onclick: () => begin(idea) }, idea);
  find("ideas").append(make("li", {}, button));
}

find("reading").open = isWide();
draw();
connect();
