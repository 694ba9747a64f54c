// Elements, icons, and what a screen reader is told. Text always goes in as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

// make("button", {class: "quiet", "aria-label": "Stop", onclick: stop}, "Stop", icon("stop"))
export function make(name, given = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export function icon(name) {
  // of the sprite in index.html
  const svg = document.createElementNS(SVG, "svg"), use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

// a button with an icon, and words unless the name is only for screen readers
export function button(name, iconName, action, { bare = false, kind = "quiet" } = {}) {
  const given = { type: "button", class: bare ? `${kind} bare` : kind, onclick: action };
  if (bare) Object.assign(given, { "aria-label": name, title: name });
  return make("button", given, icon(iconName), bare ? "" : make("span", {}, name));
}

export function show(element, on) {
  element.hidden = !on;
}

// said once, politely; the same words twice are said twice
export function say(text) {
  const region = find("spoken");
  region.textContent = "";
  requestAnimationFrame(() => {
    region.textContent = text;
  });
}
