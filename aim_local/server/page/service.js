// What the service is doing: its model, whether it can be reached, and the key that it wants.

import * as api from "./api.js";
import * as shelf from "./clips.js";
import { find, make, say, show } from "./dom.js";
import * as reading from "./reading.js";

const PATIENCE = 3; // seconds between two looks at a service that is not ready
const STATES = {
  ok: "ready",
  loading: "loading its model",
  stopping: "stopping",
  unreachable: "not reachable",
  key: "wants a key",
};
let model = null;
let watching = 0;

export const modelName = () => model?.id ?? "default";

export async function connect() {
  clearTimeout(watching);
  try {
    model = await api.model();
  } catch (error) {
    return error.status === 401 ? wantKey() : look();
  }
  find("model-name").textContent = model.id;
  reading.setModel(model.meta);
  tell("ok");
  if (model.meta?.vision === false) tellBlind();
}

// what it says of itself, and again after a while
export async function look() {
  tell(await api.health());
  watching = setTimeout(connect, 1000 * PATIENCE);
}

function tell(state) {
  const text = STATES[state] ?? state;
  find("light").className = `light ${state}`;
  if (find("state").textContent === text) return;
  find("state").textContent = text;
  if (state !== "ok") say(`The service is ${text}`);
}

function tellBlind() {
  find("landing").replaceChildren(
    make("p", { class: "headline" }, "This model cannot see."),
    make("p", { class: "sub" }, "It answers questions in text; clips and pictures are refused."),
  );
}

// --- the key ---

export function wantKey() {
  tell("key");
  show(find("key-wrong"), api.hasKey());
  if (!find("key-dialog").open) find("key-dialog").showModal();
}

find("key-form").addEventListener("submit", async () => {
  api.setKey(find("key").value.trim());
  find("key").value = "";
  await connect();
  for (const clip of shelf.clips) if (clip.state === "failed") shelf.send(clip);
});
find("key-later").addEventListener("click", () => find("key-dialog").close());
