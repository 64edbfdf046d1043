// Talks to the router's API: one function that sends, problems as one kind of error, and the key.

import { $ } from "./show.js";

const STORED = "autopilot.key";
const ROOT = new URL(".", document.baseURI); // the page is at ROOT/admin

/** What went wrong, as the problem document (RFC 9457) the router answered. */
export class Problem extends Error {
  constructor(document) {
    super(document.detail ?? document.title);
    this.document = document;
  }
}

/**
 * Sends a request and returns the JSON of its answer, null for none. `body` is a value, or JSON text as a
 * string. An answer that is no problem document is returned whatever its status: a report of what failed is
 * an answer. Asks for a key, and again, while the router wants one, until that is declined. Throws Problem.
 */
export async function ask(method, path, body, headers = {}) {
  return read(await answered(method, path, body, headers));
}

/** Gives the lines of a stream of events as they come, until it ends. Throws as `ask`, or when it breaks off. */
export async function* lines(path, signal) {
  // EventSource would do, but has no way to send a key.
  const response = await answered("GET", path, undefined, { Accept: "text/event-stream" }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const whole = (rest + value).split("\n");
    rest = whole.pop();
    yield* whole;
  }
}

async function answered(method, path, body, headers, signal) {
  for (;;) {
    const key = sessionStorage.getItem(STORED);
    const response = await send(method, path, body, { ...headers, ...(key && { Authorization: `Bearer ${key}` }) }, signal);
    if (!isProblem(response)) return response;
    const told = await read(response);
    if (response.status !== 401) throw new Problem(told);
    $("enter-key").hidden = false;
    // Somebody else may have been given a new key since this request was sent.
    const renewed = sessionStorage.getItem(STORED) !== key;
    if (!renewed && (declined || !(await enterKey(key ? told.detail : "")))) {
      throw new Problem({ hint: "The button for it is at the top of the page.", ...told });
    }
  }
}

async function send(method, path, body, headers, signal) {
  const content = body === undefined ? {} : { "Content-Type": "application/json" };
  try {
    return await fetch(new URL(path, ROOT), {
      method,
      headers: { ...content, ...headers },
      body: typeof body === "string" || body === undefined ? body : JSON.stringify(body),
      cache: "no-store",
      redirect: "error",
      signal,
    });
  } catch (error) {
    throw new Problem({
      title: "No answer from the router",
      detail: String(error.message),
      hint: "Check that it still runs at this address.",
    });
  }
}

async function read(response) {
  const text = await response.text();
  if (!text) return null;
  try {
    return JSON.parse(text);
  } catch {
    throw new Problem({
      title: "The answer is not JSON",
      status: response.status,
      detail: text.slice(0, 300),
      hint: "Something between this page and the router may have answered in its place.",
    });
  }
}

function isProblem(response) {
  const type = response.headers.get("content-type") ?? "";
  return type.startsWith("application/problem+json");
}

let asking = null; // several requests are refused at once: they wait for one dialog
let declined = false; // then requests that follow fail at once, until the button is used

/** Asks for a key; `refusal` says why the last one was not taken. Returns whether one was given. */
export function enterKey(refusal = "", title = "This router needs a key") {
  asking ??= showKeyDialog(refusal, title).finally(() => { asking = null; });
  return asking;
}

function showKeyDialog(refusal, title) {
  const dialog = $("key");
  $("key-title").textContent = title;
  const error = $("key-error");
  error.hidden = !refusal;
  error.textContent = refusal;
  $("key-input").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const key = dialog.returnValue && $("key-input").value;
      $("key-input").value = "";
      if (key) sessionStorage.setItem(STORED, key);
      declined = !key;
      showKeyButtons();
      resolve(!declined);
    }, { once: true });
  });
}

/** Returns whether this tab has a key. */
export function hasKey() {
  return sessionStorage.getItem(STORED) !== null;
}

/** Forgets the key of this tab. */
export function forgetKey() {
  sessionStorage.removeItem(STORED);
  showKeyButtons();
}

/** Shows the buttons that go with having a key, or with being asked for one. */
export function showKeyButtons() {
  $("forget-key").hidden = !hasKey();
  if (hasKey()) $("enter-key").hidden = true;
}
