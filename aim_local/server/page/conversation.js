// What was said, and what a question takes along: earlier turns, and clips that the model has not seen like that.

import * as shelf from "./clips.js";
import * as reading from "./reading.js";

export let turns = [];

export function clear() {
  for (const turn of turns) turn.element.remove();
  turns = [];
}

// questions without an answer are no part of it
export const answered = () => turns.filter((turn) => turn.answer && turn.state !== "failed");
const before = (turn) => answered().filter((other) => other !== turn && other.number < turn.number);

// the media up to a turn, in the order in which the service counts them
export function mediaUpTo(turn) {
  return [...before(turn), turn].flatMap((other) => other.media.filter(({ clip }) => !clip.removed));
}

export const clipOf = (turn, frame) => mediaUpTo(turn)[frame.media]?.clip;

// --- clips that go with the next question: those that it has not seen as they would be read now ---

const asRead = (clip) => JSON.stringify(reading.sampling(clip));
const seen = (clip, as) => answered().some(({ media }) => media.some((item) => item.clip === clip && item.as === as));

export const pending = () => shelf.clips.filter((clip) => clip.state !== "failed" && !seen(clip, asRead(clip)));

// as a turn keeps them: what the player is set to later is none of its business
export function taken() {
  return pending().map((clip) => ({
    clip,
    sampling: reading.sampling(clip),
    as: asRead(clip),
    start: clip.start,
    end: clip.end,
  }));
}

// --- on the wire ---

function content(turn) {
  const media = turn.media.filter(({ clip }) => !clip.removed);
  if (!media.length) return turn.question;
  const parts = media.map(({ clip, sampling }) => ({ type: "file", file: { file_id: clip.id }, ...sampling }));
  return [...parts, { type: "text", text: turn.question }];
}

export function request(turn, model) {
  const said = before(turn).flatMap((other) => [
    { role: "user", content: content(other) },
    { role: "assistant", content: other.answer },
  ]);
  return {
    model,
    messages: [...said, { role: "user", content: content(turn) }],
    stream: true,
    stream_options: { include_usage: true },
    return_progress: true,
    return_looks: true,
    visual_tokens: reading.visualTokens(),
  };
}
