// What happened: the latest events, newest on top, and those that follow as they happen.

import { ask, lines } from "./client.js";
import { $, el, json, problem, row, say, table, time } from "./show.js";

const MOST = 200; // events that are shown, and that one page of the router has
const PAGES = 10; // to look through for events that are rare
const MINUTE = 60_000;
const SPANS = [60 * MINUTE, 24 * 60 * MINUTE];
const EVER = 32 * 24 * 60 * MINUTE; // longer than events are kept
const SILENCE = 45_000; // three times as long as the router ever says nothing
const AGAIN = 3_000;
const SELDOM = 30_000;
const STALE = 5 * MINUTE;

const COLUMNS = ["Time", "Type", "Source", "Target", "Details"];

const types = new Set();
let after = ""; // the id of the last event
let heard = 0; // when that was sure to be the last one; 0 while nothing has been read
let following = new AbortController();
let paused = false;

/** Loads the latest events, then shows what happens from now on. */
export async function load() {
  following.abort();
  following = new AbortController();
  const mine = following.signal;
  heard = 0;
  try {
    const found = await latest($("event-type").value);
    if (mine.aborted) return;
    ({ after } = found);
    heard = Date.now();
    show(found.events);
  } catch (error) {
    if (mine.aborted) return;
    stop(error);
    if (!refusal(error)) setTimeout(() => { if (!mine.aborted) goOn(); }, SELDOM);
    return;
  }
  goOn();
}

/** Shows what happens from now on, unless nobody looks. */
function goOn() {
  following.abort();
  following = new AbortController();
  if (paused) said("paused", "");
  else if (!document.hidden) follow(following.signal);
}

/** Returns the latest events of a type, "" for all, oldest first, and where they end. */
async function latest(type) {
  const all = await since(EVER, type, 1); // where there are few, this is it
  if (all.whole) return all;
  let found = await since(MINUTE, type, PAGES);
  for (const span of [...SPANS, EVER]) {
    if (!found.whole || found.events.length === MOST) break;
    const wider = await since(span, type, PAGES);
    if (!wider.whole) break;
    found = wider;
  }
  return found;
}

/** Reads the events of a span that ends now, from as many pages at most. The router has them oldest first. */
async function since(span, type, pages) {
  // An id begins with its time in milliseconds: this one is before all that are later.
  let from = `${String(Date.now() - span).padStart(13, "0")}-0-00000000`;
  let events = [];
  for (let page = 0; page < pages; page += 1) {
    const answer = await ask("GET", `autopilot/events?limit=${MOST}&${query(from, type)}`);
    events = events.concat(answer.events).slice(-MOST);
    from = answer.next ?? events.at(-1)?.id ?? from;
    if (answer.next === null) return { events, after: from, whole: true };
  }
  return { events, after: from, whole: false };
}

const query = (from, type) => `after=${encodeURIComponent(from)}${type ? `&type=${encodeURIComponent(type)}` : ""}`;

/** Shows what happens, until `signal` says to stop. A stream that ends or breaks off is opened again. */
async function follow(signal) {
  let wait = AGAIN;
  while (!signal.aborted) {
    if (Date.now() - heard > STALE) return load(); // rather than all that was missed, one by one
    try {
      await listen(signal);
      wait = AGAIN;
    } catch (error) {
      if (signal.aborted) return;
      if (refusal(error)) return stop(error);
      said("not live", "the router does not answer; it is asked again");
      wait = Math.min(wait * 2, SELDOM);
    }
    await new Promise((resolve) => { setTimeout(resolve, wait); });
  }
}

/** Shows what one stream brings. Throws when it breaks off, or is silent for too long. */
async function listen(signal) {
  const silent = new AbortController();
  const watch = () => setTimeout(() => silent.abort(), SILENCE);
  let watching = watch();
  try {
    const path = `autopilot/events?${query(after, $("event-type").value)}`;
    for await (const line of lines(path, AbortSignal.any([signal, silent.signal]))) {
      if (signal.aborted) return;
      clearTimeout(watching);
      watching = watch();
      heard = Date.now();
      said("live", "what happens now appears on top");
      if (line.startsWith("data: ")) add(JSON.parse(line.slice(6)));
    }
  } finally {
    clearTimeout(watching);
  }
}

const refusal = (error) => [401, 403].includes(error.document?.status);

function stop(error) {
  said("not live", "");
  $("events-list").replaceChildren(error.document?.status === 403
    ? el("p", { class: "empty" }, "With this key you cannot see what happened: that takes the scope ", el("code", {}, "read"), ".")
    : problem(error));
}

/** Says how things stand, once for as long as they do. */
function said(word, rest) {
  if ($("events-status").dataset.said === word + rest) return;
  $("events-status").dataset.said = word + rest;
  say($("events-status"), word, rest);
}

function show(events) {
  for (const { type } of events) types.add(type);
  offer();
  $("events-list").replaceChildren(events.length
    ? table("Events", COLUMNS, events.toReversed().map(cells), "events")
    : el("p", { class: "empty" }, $("event-type").value ? "No event of this type is kept." : "Nothing has happened yet."));
}

/** Puts one more on top. */
function add(event) {
  after = event.id;
  const body = $("events-list").querySelector("tbody");
  if (!body) return show([event]);
  body.prepend(row(COLUMNS, cells(event)));
  if (body.rows.length > MOST) body.rows[MOST].remove();
  if (types.has(event.type)) return;
  types.add(event.type);
  offer();
}

function cells(event) {
  const { target, id } = event.payload;
  return [time(event.timestamp), el("code", {}, event.type), event.source, String(target ?? id ?? ""), details(event)];
}

function details(event) {
  const node = el("details", {
    toggle: () => { if (node.childElementCount === 1) node.append(json({ ...event.payload, trace_id: event.trace_id }, "Event")); },
  }, el("summary", {}, "Show", el("span", { class: "sr" }, ` what else is known of ${event.type}`)));
  return node;
}

/** Offers the types that have been seen. */
function offer() {
  const select = $("event-type");
  const chosen = select.value;
  select.replaceChildren(el("option", { value: "" }, "All types"),
    ...[...types].sort().map((type) => el("option", { value: type }, type)));
  select.value = chosen;
}

/** Makes the section work. */
export function start() {
  $("event-type").addEventListener("change", load);
  $("event-pause").addEventListener("click", () => {
    paused = !paused;
    $("event-pause").textContent = paused ? "Go on" : "Pause";
    goOn();
  });
  // A browser has few connections for one router: a page that nobody sees gives its own back.
  document.addEventListener("visibilitychange", goOn);
}
