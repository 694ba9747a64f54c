// Times: found in text ("0:12", "00:01:05", "12.5 s", "at second 3", "2 to 5 seconds"), and written.

const NUMBER = String.raw`\d{1,6}(?:[.,]\d{1,3})?`;
const UNIT = String.raw`(?:seconds?|secs?|s)(?![\w'\u2019])`;
const JOIN = String.raw`\s?(?:-|\u2013|\u2014|to|until|till|through|and)\s?`;
const FORMS = [
  String.raw`(?<clock>(?:(?<h>\d{1,2}):)?(?<m>\d{1,3}):(?<s>[0-5]\d(?:[.,]\d{1,3})?))(?![\d:]|\s?[ap]\.?m\b)`,
  String.raw`(?<mins>\d{1,4})[\s-]?(?:minutes?|mins?)(?![\w'])(?:(?:,|\sand)?\s?(?<minsec>${NUMBER})[\s-]?${UNIT})?`,
  String.raw`(?<ms>\d{1,4})\s?m\s?(?<mss>${NUMBER})\s?s(?!\w)`, // 1m05s; a bare "5 m" is a length
  String.raw`(?<=\bseconds?\s)(?<named>${NUMBER})(?!\w)`,
  String.raw`(?<sec>${NUMBER})[\s-]?${UNIT}`,
  String.raw`(?<bare>${NUMBER})(?=${JOIN}${NUMBER}[\s-]?${UNIT})`, // "2" of "2 to 5 seconds"
  String.raw`(?<=\bseconds\s${NUMBER}${JOIN})(?<last>${NUMBER})(?!\w)`, // "5" of "seconds 2 to 5"
];
// not in a word, a longer number or an address
const MOMENT = new RegExp(String.raw`(?<![\p{L}\p{N}_.:/])(?:${FORMS.join("|")})`, "giu");
const RANGE = /^\s?(?:-|\u2013|\u2014|to|until|till|through)\s?$/i;
const BETWEEN = /\bbetween\s(?:seconds?\s)?$/i;

const number = (text) => Number(text.replace(",", "."));

function secondsOf({ clock, h, m, s, mins, minsec, ms, mss, named, sec, bare, last }) {
  if (ms) return Number(ms) * 60 + number(mss);
  if (clock) return h && Number(m) > 59 ? NaN : Number(h ?? 0) * 3600 + Number(m) * 60 + number(s);
  if (mins) return Number(mins) * 60 + (minsec ? number(minsec) : 0);
  return number(named ?? sec ?? bare ?? last);
}

function moments(text) {
  const found = [];
  for (const match of text.matchAll(MOMENT)) {
    const start = secondsOf(match.groups);
    if (Number.isFinite(start))
      found.push({ from: match.index, to: match.index + match[0].length, start, bare: Boolean(match.groups.bare) });
  }
  return found;
}

// [{from, to, start, end}]: characters [from, to) of the text name second `start`, or the span up to `end`. What lies
// behind the clip's end is no time of it
export function findTimes(text, duration = Infinity) {
  const spans = [], all = moments(text);
  for (let i = 0; i < all.length; i++) {
    const { from, to, start, bare } = all[i], next = all[i + 1];
    const between = next ? text.slice(to, next.from) : "";
    const joined =
      next &&
      next.start > start &&
      (RANGE.test(between) || (/^\sand\s$/i.test(between) && BETWEEN.test(text.slice(0, from))));
    if (joined) {
      spans.push({ from, to: next.to, start, end: Math.min(next.start, duration) });
      i++;
    } else if (!bare) spans.push({ from, to, start, end: null });
  }
  return spans.filter(({ start }) => start <= duration);
}

const even = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // as the service rounds in its labels

// 0:12, 1:01:05; with tenths where asked for: 0:12.5
export function clock(seconds, tenths = false) {
  const whole = tenths ? even(seconds * 10) / 10 : Math.floor(seconds + 1e-6);
  const h = Math.floor(whole / 3600),
    m = Math.floor(whole / 60) % 60,
    s = whole % 60;
  const tail = tenths ? s.toFixed(1).padStart(4, "0") : String(s).padStart(2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${tail}` : `${m}:${tail}`;
}

export function spoken(seconds) {
  // for screen readers: "1 minute 5 seconds"
  const m = Math.floor(seconds / 60), s = Math.round((seconds - 60 * m) * 10) / 10;
  const part = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  return m ? `${part(m, "minute")} ${part(s, "second")}` : part(s, "second");
}

export function duration(ms) {
  // 84 ms, 1.4 s, 2 min 5 s
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
  return `${Math.floor(ms / 60000)} min ${Math.round((ms % 60000) / 1000)} s`;
}
