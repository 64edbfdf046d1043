// Infrastructure: what there is, what is missing, and creating that.

import { ask } from "./client.js";
import { $, busy, confirmed, counted, el, facts, mark, problem, say, table } from "./show.js";

const KINDS = { kv: "KV namespaces", r2: "R2 buckets", workers: "Workers", d1: "D1 databases", queues: "Queues" };

/** Diagnoses and shows the state. */
export async function load() {
  try {
    $("infrastructure-state").replaceChildren(...state(await ask("GET", "autopilot/diagnose")));
  } catch (error) {
    $("infrastructure-state").replaceChildren(problem(error));
  }
}

/** Returns the problem of a part that could not be read, or null. */
function unread(part) {
  const error = part?.error;
  return error ? problem({ document: { title: error.message ?? error.code, detail: error.code, hint: error.hint } }) : null;
}

function state(told) {
  const token = told.token ?? {};
  return [
    facts([
      ["Provider", told.provider],
      ["Token", token.error ? mark("failed") : [token.status && mark(token.status), token.kind && ` ${token.kind}`].filter(Boolean)],
      ["Token id", token.id && el("code", {}, token.id)],
      ["Missing permissions", (told.missing ?? []).join(", ")],
      ["Note", told.note],
    ]),
    unread(token),
    ...permissions(told.permissions),
    unread(told.resources) ?? tiles(told.resources ?? {}),
    !told.resources?.error && (unread(told.drift) ?? drift(told.drift ?? {})),
  ].filter(Boolean);
}

function permissions(list) {
  if (!Array.isArray(list)) return [unread(list)];
  if (!list.length) return [];
  return [el("h3", {}, "Permissions"), table("Permissions", ["Permission", "Needs", "Has", "Probe"],
    list.map((one) => [one.permission, one.needs, mark(one.has, one.has === one.needs ? "ok" : "failed"), one.probe ?? ""]))];
}

function tiles(resources) {
  return el("ul", { class: "tiles" }, Object.entries(KINDS).map(([kind, label]) => {
    const list = resources[kind];
    const names = Array.isArray(list) ? list.map((one) => one.title ?? one.name ?? String(one)) : null;
    return el("li", { "data-kind": kind },
      el("span", { class: "number" }, names ? String(names.length) : "?"), el("span", { class: "muted" }, label),
      names?.length > 0 && el("details", {}, el("summary", {}, "Names"),
        el("ul", { class: "plain-list" }, names.map((name) => el("li", {}, el("code", {}, name))))),
      unread(list));
  }));
}

function drift({ missing = [], changed = [], unmanaged = [] }) {
  const rows = [
    ...missing.map((one) => [mark("missing"), one.kind, el("code", {}, one.name), `needed by ${(one.needed_by ?? []).join(", ")}`]),
    ...changed.map((one) => [mark("changed"), one.kind, el("code", {}, one.name), one.why]),
    ...unmanaged.map((one) => [mark("unmanaged"), one.kind ?? "", el("code", {}, one.name ?? String(one)), "no autopilot needs it"]),
  ];
  const heading = el("h3", {}, `Drift: ${missing.length} missing, ${changed.length} changed, ${unmanaged.length} unmanaged`);
  if (!rows.length) return el("p", { class: "hint" }, "No drift: what autopilots need is there, and nothing else.");
  return el("div", {}, heading, table("Drift", ["State", "Kind", "Name", "Why"], rows, "short"));
}

const ensure = (dryRun) => ask("POST", "autopilot/ensure-infra", { dry_run: dryRun });

const toCreate = (report) => report.plan.filter((one) => one.action === "create" || one.action === "update");
const blocked = (report) => report.plan.filter((one) => one.action === "blocked");

async function showPlan() {
  await attempt(async () => {
    const report = await ensure(true);
    const [making, stopped] = [toCreate(report).length, blocked(report).length];
    const rest = report.plan.length - making - stopped;
    say($("infrastructure-status"), "plan",
      `would create ${making}, keep ${rest}${stopped ? `, ${stopped} blocked` : ""}; nothing was changed`);
    $("infrastructure-report").replaceChildren(table("Plan", ["Action", "Kind", "Name", "Why"],
      report.plan.map((one) => [mark(one.action), one.kind, el("code", {}, one.name), one.why]), "short"));
    await load(); // so that the drift below is as old as the plan
  });
}

async function create() {
  await attempt(async () => {
    const planned = await ensure(true);
    const wanted = toCreate(planned);
    if (!wanted.length && blocked(planned).length) return done(planned);
    if (!wanted.length) {
      say($("infrastructure-status"), "ok", "nothing is missing");
      $("infrastructure-report").replaceChildren();
      return;
    }
    const list = el("ul", { class: "plain-list" }, wanted.map((one) => el("li", {}, one.kind, " ", el("code", {}, one.name))));
    if (!(await confirmed(`Create ${counted(wanted.length, "resource")}?`, list, "Create"))) return;
    done(await ensure(false));
    await load();
  });
}

function done(report) {
  const created = Object.values(report.created).flat().length;
  const failed = report.errors.length;
  say($("infrastructure-status"), report.ok ? "ok" : "failed", `created ${created}${failed ? `, ${failed} could not be created` : ""}`);
  $("infrastructure-report").replaceChildren(table("Report", ["Outcome", "Kind", "Name", "About"],
    report.plan.map((one) => [...cameOf(one, report), one])
      .map(([outcome, why, one]) => [mark(outcome), one.kind, el("code", {}, one.name), why]), "short"));
}

/** Returns what came of one line of the plan, and why. */
function cameOf({ action, kind, name, why }, report) {
  const failure = report.errors.find((one) => one.kind === kind && one.name === name);
  if (failure) return ["failed", `${failure.code}: ${failure.message}`];
  const created = (report.created[kind] ?? []).some((one) => one.name === name);
  if (created) return ["created", why];
  return [action === "keep" ? "kept" : action, why];
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    say($("infrastructure-status"), "failed", "");
    $("infrastructure-report").replaceChildren(problem(error));
  }
}

/** Makes the section work. */
export function start() {
  const buttons = { diagnose: load, "show-plan": showPlan, create };
  for (const [id, work] of Object.entries(buttons)) {
    $(id).addEventListener("click", (event) => busy(event.currentTarget, work));
  }
}
