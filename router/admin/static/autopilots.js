// The autopilots: list, filter, register, remove.

import { ask } from "./client.js";
import { $, busy, chips, confirmed, copyButton, counted, el, mark, problem, say, table } from "./show.js";

const NEEDS = {
  kvNamespaces: "KV", r2Buckets: "R2", workers: "Worker", d1Databases: "D1", queues: "Queue",
};
const FIELDS = ["name", "endpoint", "capabilities", "description"];

let rows = [];
let next = null;
let changed = () => {};

/** Returns a capability as an object, whichever way the registration gave it. */
const asCapability = (one) => (typeof one === "string" ? { name: one } : one);

/** Returns every capability that can be asked for, sorted: a family such as `web.*` can not. */
export function capabilities() {
  const names = rows.flatMap((row) => row.capabilities.map((one) => asCapability(one).name));
  return [...new Set(names)].filter((name) => !name.endsWith(".*")).sort();
}

/** Returns what the first autopilot that offers a capability says about it: description, input_schema. */
export async function capability(name) {
  const find = (list) => list.flatMap((row) => row.capabilities.map(asCapability)).find((one) => one.name === name);
  const known = find(rows);
  if (known || next === null) return known ?? { name };
  const answer = await ask("GET", `autopilot/list?limit=1&capability=${encodeURIComponent(name)}`);
  return find(answer.autopilots) ?? { name };
}

/** Loads the first page of autopilots and shows it. */
export async function load() {
  rows = [];
  await loadFrom("autopilot/list?limit=200");
}

async function loadFrom(path) {
  try {
    const answer = await ask("GET", path);
    rows = rows.concat(answer.autopilots);
    next = answer.next;
    $("autopilots-problem").replaceChildren();
  } catch (error) {
    $("autopilots-problem").replaceChildren(problem(error));
    return;
  }
  show();
}

function show() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = rows.filter((row) => matches(row, words));
  $("count").textContent = `${rows.length}${next ? "+" : ""}`;
  const told = words.length ? `${shown.length} of ${counted(rows.length, "autopilot")} match` : counted(rows.length, "autopilot");
  $("autopilots-status").textContent = told;
  $("autopilots-list").replaceChildren(...[
    rows.length === 0 && nothingYet(),
    rows.length > 0 && shown.length === 0 && el("p", { class: "empty" }, "No autopilot matches the filter."),
    shown.length > 0 && table("Registered autopilots",
      ["Name", "Health", "Endpoint", "Capabilities", "Needs", "Revision", "Remove"], shown.map(rowOf), "autopilots"),
    next !== null && el("button", { type: "button", click: (event) => busy(event.currentTarget, more) }, "Load more"),
  ].filter(Boolean));
}

const more = () => loadFrom(`autopilot/list?limit=200&cursor=${encodeURIComponent(next)}`);

function matches(row, words) {
  const text = [row.name, row.health, row.endpoint, row.description, ...row.capabilities.map((one) => asCapability(one).name)]
    .join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

function nothingYet() {
  return el("div", { class: "empty" },
    el("p", {}, "No autopilot is registered yet."),
    el("p", {}, "Those that ship: ", el("code", {}, `scripts/register-autopilots --url ${location.origin}`)),
    el("p", {}, "Your own: ", el("code", {}, "autopilot register FILE"), ", or ",
      el("a", { href: "#register" }, "the form below"), "."));
}

function rowOf(row) {
  const needs = Object.entries(row.needs).flatMap(([kind, names]) =>
    names.map((one) => `${NEEDS[kind] ?? kind} ${one.name ?? one}`));
  return [
    [el("strong", {}, row.name), row.description && el("p", { class: "hint" }, row.description)],
    mark(row.health),
    el("span", { class: "copyable" }, el("code", {}, row.endpoint), copyButton(row.endpoint, `endpoint of ${row.name}`)),
    chips(row.capabilities.map((one) => asCapability(one).name)),
    needs.length ? el("ul", { class: "plain-list" }, needs.map((need) => el("li", {}, need))) : el("span", { class: "muted" }, "nothing"),
    String(row.revision),
    el("button", { type: "button", class: "small danger", "aria-label": `Remove ${row.name}`, click: () => remove(row) }, "Remove"),
  ];
}

async function remove(row) {
  const text = el("p", {}, `'${row.name}' gets no further tasks. What it needs and has stored stays.`);
  if (!(await confirmed(`Remove ${row.name}?`, text, "Remove"))) return;
  let failure = null;
  try {
    await ask("DELETE", `autopilot/registry/${encodeURIComponent(row.name)}`, undefined, { "If-Match": `"${row.revision}"` });
  } catch (error) {
    failure = error;
  }
  await changed(); // whatever came of it, what is shown here is no longer sure
  if (failure) $("autopilots-problem").replaceChildren(problem(failure));
  else $("autopilots-status").textContent = `${row.name} is removed`;
  $("autopilots").focus({ preventScroll: true });
}

async function register() {
  clearErrors();
  const value = Object.fromEntries(FIELDS.map((name) => [name, $(`register-${name}`).value.trim()]));
  const names = value.capabilities.split(",").map((one) => one.trim()).filter(Boolean);
  const body = { ...value, capabilities: names };
  const known = rows.find((row) => row.name === value.name);
  if (known && !(await confirmed(`Replace ${known.name}?`, replacement(known), "Replace"))) return;
  try {
    const answer = await ask("POST", "autopilot/registry", body, known ? { "If-Match": `"${known.revision}"` } : {});
    say($("register-status"), "ok", answer.message);
    $("register-body").replaceChildren(...registered(answer));
    $("register-form").reset();
    await changed();
  } catch (error) {
    showErrors(error, names);
  }
}

function replacement(known) {
  return el("p", {}, `There is a registration of that name, at revision ${known.revision}. What this form does not ask for, `
    + "such as its tasks, schemas and needs, would be gone.");
}

function registered(answer) {
  const secret = answer.signing_secret;
  const warnings = (answer.warnings ?? []).map((text) => el("p", { class: "notice" }, text));
  if (!secret) return warnings;
  const notice = el("div", { class: "notice" },
    el("p", {}, el("strong", {}, "Signing secret"), ", shown this once. With it the autopilot checks that a task comes from this router."),
    el("p", { class: "copyable" }, el("code", { id: "secret" }, secret), copyButton(secret, "signing secret")),
    el("button", { type: "button", class: "small", click: () => notice.remove() }, "I have stored it"));
  return [...warnings, notice];
}

function clearErrors() {
  for (const name of FIELDS) showError(name, []);
  $("register-body").replaceChildren();
}

function showError(name, messages) {
  const node = $(`register-${name}-error`);
  node.hidden = messages.length === 0;
  node.replaceChildren(...messages.map((text) => el("span", {}, text)));
  if (messages.length) $(`register-${name}`).setAttribute("aria-invalid", "true");
  else $(`register-${name}`).removeAttribute("aria-invalid");
}

/** Puts each error beside its field; what belongs to none is shown apart. */
function showErrors(error, names) {
  const told = error.document ?? {};
  const errors = told.code === "endpoint_refused" ? [{ field: "endpoint", message: told.detail }] : told.errors ?? [];
  const beside = new Map(FIELDS.map((name) => [name, []]));
  const apart = [];
  for (const { field, message } of errors) {
    const index = /^capabilities\[(\d+)\]/.exec(field)?.[1];
    const messages = beside.get(field.split(/[.[]/)[0]);
    if (messages) messages.push(index === undefined ? message : `${names[index]}: ${message}`);
    else apart.push({ field, message });
  }
  for (const [name, messages] of beside) showError(name, messages);
  const wrong = [...beside].filter(([, messages]) => messages.length).map(([name]) => name);
  if (!wrong.length || apart.length) $("register-body").replaceChildren(problem(wrong.length ? { document: { ...told, errors: apart } } : error));
  const count = wrong.length ? `${counted(wrong.length, "field")} to correct` : "it was not registered";
  say($("register-status"), "failed", count);
  if (wrong.length) $(`register-${wrong[0]}`).focus();
}

/** Makes the section work; `whenChanged` is called after a registration came or went. */
export function start(whenChanged) {
  changed = whenChanged;
  $("filter").addEventListener("input", show);
  $("refresh").addEventListener("click", (event) => busy(event.currentTarget, changed));
  $("register-form").addEventListener("submit", (event) => {
    event.preventDefault();
    busy(event.submitter ?? $("register-form"), register);
  });
}
