// Running a task: what there is, its meta, an explanation, the result.

import { capabilities, capability } from "./autopilots.js";
import { ask, Problem } from "./client.js";
import { example, fields } from "./example.js";
import { attempts, outcome } from "./outcome.js";
import { $, busy, chips, copyButton, el, facts, mark, problem, say, table, time } from "./show.js";

const drafts = new Map(); // what was typed for a choice, while another one is looked at

let tasks = [];
let shown = { choice: "", example: "{}" };
let whenKept = () => {};

/** Loads the catalogue, then offers its tasks and every capability. */
export async function load() {
  try {
    tasks = (await ask("GET", "autopilot/catalogue")).tasks;
  } catch (error) {
    say($("result-status"), "failed", "the catalogue could not be read");
    $("result-body").replaceChildren(problem(error));
    return;
  }
  offer();
  await choose();
}

function offer() {
  const select = $("task");
  const before = select.value;
  const sources = [...new Set(tasks.map((task) => task.source))].sort((a, b) => (b === "built-in") - (a === "built-in") || a.localeCompare(b));
  const groups = sources.map((source) => el("optgroup", { label: source === "built-in" ? "Documented tasks" : `Tasks of ${source}` },
    tasks.filter((task) => task.source === source).map((task) => el("option", { value: `task:${task.task}` }, task.task))));
  const direct = capabilities();
  if (direct.length) groups.push(el("optgroup", { label: "Capabilities" },
    direct.map((name) => el("option", { value: `capability:${name}` }, name))));
  select.replaceChildren(...groups);
  const wanted = before || "task:generate_page";
  if ([...select.options].some((option) => option.value === wanted)) select.value = wanted;
}

/** Returns the choice: its kind, its name, and the catalogue entry of a task. */
function chosen() {
  const [kind, name] = $("task").value.split(/:(.*)/s);
  const entry = kind === "task" ? tasks.find((task) => task.task === name) : null;
  return { kind, name, entry, capability: entry ? entry.capability : name };
}

async function choose() {
  const value = $("task").value;
  if (!value) return;
  const choice = chosen();
  let offered = {};
  try {
    offered = await capability(choice.capability);
  } catch {
    // Without the schema there is no example; running the task will tell what is wrong.
  }
  if ($("task").value !== value) return; // another choice was made meanwhile
  about(choice, offered);
  const text = JSON.stringify(example(offered.input_schema), null, 2);
  if ($("meta").value !== shown.example) drafts.set(shown.choice, $("meta").value);
  $("meta").value = drafts.get(value) ?? text;
  shown = { choice: value, example: text };
  metaError("");
}

function about({ entry, capability: name }, offered) {
  const serving = entry?.autopilots ?? [];
  const who = !entry ? "" : serving.length ? `Served by ${serving.join(", ")}.` : "Nobody can serve it now.";
  const what = offered.description || entry?.description || "";
  $("task-about").replaceChildren(el("code", {}, name), what && ` ${what}`, who && ` ${who}`);
  const list = fields(offered.input_schema);
  $("fields").hidden = list.length === 0;
  $("fields-list").replaceChildren(table("Fields of meta", ["Field", "Type", "About"], list.map((field) => [
    [el("code", {}, field.name), field.required && el("span", { class: "hint" }, " required")],
    field.type, field.description,
  ]), "short"));
}

function metaError(message) {
  $("meta-error").hidden = !message;
  $("meta-error").textContent = message;
  if (message) $("meta").setAttribute("aria-invalid", "true");
  else $("meta").removeAttribute("aria-invalid");
}

/** Returns the meta as it was typed, so that no number loses a digit on its way; null when it is no object. */
function metaText() {
  const text = $("meta").value.trim() || "{}";
  try {
    const value = JSON.parse(text);
    const isObject = value !== null && typeof value === "object" && !Array.isArray(value);
    metaError(isObject ? "" : "must be an object: { … }");
    return isObject ? text : null;
  } catch (error) {
    metaError(`is not JSON: ${error.message}`);
    return null;
  }
}

async function send(mode) {
  const meta = metaText();
  if (meta === null) {
    $("meta").focus();
    return;
  }
  const { kind, name } = chosen();
  const verb = mode === "explain" ? "Explaining" : "Running";
  $("result-status").replaceChildren(`${verb} ${name} …`);
  $("result-body").replaceChildren();
  const body = `{${JSON.stringify(kind)}:${JSON.stringify(name)},"mode":"${mode}","meta":${meta}}`;
  try {
    const answer = await ask("POST", "autopilot/plan", body);
    const kept = answer.status === "awaiting_approval";
    const parts = mode === "explain" ? explained(answer) : kept ? waiting(answer) : outcome($("result-status"), answer);
    $("result-body").replaceChildren(...parts);
    if (kept) whenKept();
  } catch (error) {
    const told = error instanceof Problem ? error.document : {};
    say($("result-status"), "failed", name);
    const tried = attempts(told.attempts);
    $("result-body").replaceChildren(problem(error), ...(tried ? [tried] : []));
  }
}

function explained(answer) {
  const target = answer.autopilot ? `goes to ${answer.autopilot}` : "goes to nobody";
  say($("result-status"), answer.autopilot ? "ok" : "failed", `${answer.task ?? answer.capability} ${target}; nothing was sent`);
  const configure = answer.would_configure ?? [];
  const waits = answer.ready === false && "no: what it needs is created first";
  return [
    facts([
      ["Capability", el("code", {}, answer.capability)],
      ["Ready", answer.ready === undefined || answer.ready === null ? null : waits || "yes"],
      ["Approval", answer.requires_approval ? "somebody else has to approve it first" : null],
      ["Asked to enable it", configure.length ? chips(configure.map((one) => one.autopilot ?? String(one))) : null],
    ]),
    table("Candidates", ["Rank", "Autopilot", "Reason", "Health", "Priority", "Weight", "In flight"],
      (answer.candidates ?? []).map((one) => [
        one.rank === null || one.rank === undefined ? "–" : String(one.rank), el("strong", {}, one.autopilot),
        one.chosen ? mark("chosen") : one.reason, one.health && mark(one.health),
        String(one.priority ?? ""), String(one.weight ?? ""), String(one.in_flight ?? ""),
      ])),
  ];
}

/** Returns what there is to say of a task that is kept until somebody else approves it. */
function waiting(answer) {
  say($("result-status"), "waits for approval", `${answer.task ?? answer.capability}: nothing was sent`);
  return [
    facts([
      ["Approval", el("span", { class: "copyable" }, el("code", {}, answer.id), copyButton(answer.id, "approval id"))],
      ["Capability", el("code", {}, answer.capability)],
      ["Until", time(answer.expires_at)],
      ["Trace", answer.trace_id && el("code", {}, answer.trace_id)],
    ]),
    el("p", {}, "Somebody else has to approve it by then: under ", el("a", { href: "#approvals" }, "Approvals"),
      ", or by ", el("code", {}, `autopilot approvals approve ${answer.id}`), ", with a key of their own."),
  ];
}

/** Makes the section work; `kept` is called when a task waits for approval. */
export function start(kept) {
  whenKept = kept;
  $("task").addEventListener("change", choose);
  $("meta-example").addEventListener("click", () => {
    drafts.delete(shown.choice);
    $("meta").value = shown.example;
    metaError("");
  });
  $("meta").addEventListener("input", () => metaError(""));
  $("meta").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      $("run-form").requestSubmit();
    }
  });
  $("run-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!$("run").hasAttribute("aria-busy")) busy($("explain"), () => send("sync"));
  });
  $("explain").addEventListener("click", (event) => busy(event.currentTarget, () => send("explain")));
}
