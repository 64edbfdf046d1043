// What an autopilot answered to a task: links, a preview, the whole of it.

import { copyButton, counted, el, facts, json, link, milliseconds, say, table } from "./show.js";

const MAX_LINKS = 10;

/** Says in `status` what an autopilot answered, and returns what there is to show of it. */
export function outcome(status, answer) {
  const spent = milliseconds(answer.duration_ms);
  const what = answer.task ?? answer.capability;
  say(status, answer.ok ? "ok" : "failed", `${what}: ${answer.autopilot} answered ${answer.status} in ${spent}`);
  const html = previewOf(answer.result);
  const links = addresses(answer.result);
  return [
    facts([
      ["Capability", el("code", {}, answer.capability)],
      ["Attempts", String(answer.attempts?.length ?? "")],
      ["Trace", answer.trace_id && el("span", { class: "copyable" }, el("code", {}, answer.trace_id), copyButton(answer.trace_id, "trace id"))],
    ]),
    answer.attempts?.length > 1 && attempts(answer.attempts),
    links.length > 0 && el("ul", { class: "plain-list links", "aria-label": "Links in the result" }, links.map((one) => el("li", {}, link(one)))),
    html !== null && preview(html),
    json(answer.result, "Result"),
  ].filter(Boolean);
}

/** Returns a table of the attempts, null when there were none. */
export function attempts(list) {
  if (!list?.length) return null;
  return table(counted(list.length, "attempt"), ["Autopilot", "Status", "Time", "Error"], list.map((one) => [
    one.autopilot, one.status === null ? "–" : String(one.status), milliseconds(one.duration_ms), one.error ?? "",
  ]), "short");
}

/** Returns the web addresses that are values in a result, each once. */
function addresses(result) {
  const found = new Set();
  const queue = [result];
  for (let at = 0; at < queue.length && at < 5000; at += 1) {
    const value = queue[at];
    if (typeof value === "string" && /^https?:\/\/\S{1,2000}$/i.test(value)) found.add(value);
    else if (value && typeof value === "object") queue.push(...Object.values(value).slice(0, 200));
  }
  return [...found].slice(0, MAX_LINKS);
}

/** Returns the HTML a result carries, with its style where that comes apart; null for none. */
function previewOf(result) {
  const html = result?.page?.html ?? result?.html;
  if (typeof html !== "string") return null;
  return typeof result.css === "string" ? `<!doctype html><style>${result.css}</style>${html}` : html;
}

/** Returns the HTML in a frame that has neither scripts nor our origin: see preview.js. */
function preview(html) {
  const frame = el("iframe", { class: "preview", title: "Preview of the result", sandbox: "allow-scripts", src: "admin/preview" });
  // Its origin is opaque, so no target origin can be named.
  frame.addEventListener("load", () => frame.contentWindow.postMessage(html, "*"), { once: true });
  return frame;
}
