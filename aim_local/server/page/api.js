// The service's addresses: what is asked, what comes back, and what went wrong in plain words. Knows no page.

import { events } from "./sse.js";

const KEY = "aim-local-key"; // sessionStorage: gone with the tab

export class Refused extends Error {
  // status: of HTTP, 0 where nothing answered. wait: seconds until it is worth to ask again, or null
  constructor(message, { status = 0, wait = null, title = null } = {}) {
    super(message);
    Object.assign(this, { status, wait, title });
  }
}

export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

function headers(more = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

const TITLES = {
  0: "The service does not answer",
  400: "This could not be asked like that",
  401: "The service wants a key",
  403: "The service does not allow this",
  404: "The service does not have this any more",
  413: "This is too large",
  415: "This file cannot be read",
  422: "This could not be asked like that",
  429: "The service is busy",
  499: "The service stopped this",
  503: "The service is not ready",
  504: "This took too long",
};

export function titleOf(error) {
  if (error instanceof Refused) return error.title ?? TITLES[error.status] ?? "Something went wrong in the service";
  return "Something went wrong in this page";
}

function refusal(status, body, retryAfter) {
  let told = null;
  try {
    told = JSON.parse(body).error ?? null;
  } catch {
    // not ours: a proxy's page, say
  }
  const message = told?.message ?? `It answered with status ${status} and no reason.`;
  const wait = Number.parseFloat(retryAfter ?? "");
  return new Refused(message, { status, wait: Number.isFinite(wait) ? wait : null });
}

const SILENT =
  "It may have been stopped, or the connection is gone. Start `aim-local serve` again, then try once more.";

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(SILENT);
  }
  if (!response.ok)
    throw refusal(response.status, await response.text().catch(() => ""), response.headers.get("Retry-After"));
  return response;
}

// {id, meta: {default_frames, vision, ...}} of the one model that is served
export async function model() {
  const { data } = await (await call("v1/models")).json();
  return data[0];
}

// "ok", "loading", "stopping", "unreachable"
export async function health() {
  try {
    const response = await fetch("health", { headers: headers() });
    const { status } = await response.json();
    return status ?? (response.ok ? "ok" : "unreachable");
  } catch {
    return "unreachable";
  }
}

// the uploaded file's id. onProgress: gets the share that is sent. fetch tells nothing of an upload's progress
export function upload(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(), form = new FormData();
    form.append("purpose", "user_data");
    form.append("file", file, file.name);
    request.open("POST", "v1/files");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      const id = request.status === 200 ? idOf(request.responseText) : null;
      if (id) resolve(id);
      else reject(refusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(new Refused(SILENT));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

function idOf(body) {
  try {
    return JSON.parse(body).id ?? null;
  } catch {
    return null;
  }
}

export async function remove(id) {
  // also while the page goes away
  await call(`v1/files/${encodeURIComponent(id)}`, { method: "DELETE", keepalive: true });
}

const BROKEN = { title: "The answer broke off" };
const TYPES = { invalid_request_error: 400, rate_limit_error: 429, overloaded_error: 503, timeout_error: 504 };

// the chunks of a streamed answer; ends after [DONE], throws where it breaks off
export async function* ask(body, signal) {
  const options = {
    method: "POST",
    signal,
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  };
  const response = await call("v1/chat/completions", options);
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(chunk.error.message, { status: TYPES[chunk.error.type] ?? 500 });
      yield chunk;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Refused) throw error;
    throw new Refused("The connection is gone.", BROKEN);
  }
  throw new Refused("The service closed the connection before the end.", BROKEN);
}
