// Scrolling: with the answer as it comes, unless the reader has gone up.

import { find } from "./dom.js";

const wide = matchMedia("(min-width: 60rem)"); // as in page.css: there the conversation scrolls by itself
const scroller = () => (wide.matches ? find("turns") : document.scrollingElement);
const END = 40; // pixels from the bottom that count as being there
let following = true;

export const isWide = () => wide.matches;

export function follow(always = false) {
  if (always) following = true;
  if (following) scroller().scrollTop = scroller().scrollHeight;
}

// what was said stays in sight, also where what it was made from is taller than the screen
export function settle(element) {
  if (following) element.scrollIntoView({ block: "start" });
}

function leave() {
  following = false;
}

function scrolled() {
  const { scrollTop, scrollHeight, clientHeight } = scroller();
  if (scrollHeight - scrollTop - clientHeight < END) following = true;
}

// only the reader's own hands count: where the page grows or shrinks, it scrolls, too
const passive = { passive: true };
document.addEventListener("wheel", (event) => event.deltaY < 0 && leave(), passive);
document.addEventListener("touchmove", leave, passive);
document.addEventListener("keydown", ({ key, target }) => {
  if (["PageUp", "ArrowUp", "Home"].includes(key) && target.tagName !== "TEXTAREA") leave();
});
for (const target of [find("turns"), document]) target.addEventListener("scroll", scrolled, passive);
