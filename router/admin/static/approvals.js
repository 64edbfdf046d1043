// Approvals: tasks that wait until somebody else decides, what exactly is decided about, and what came of it.

import { ask, enterKey, hasKey } from "./client.js";
import { outcome } from "./outcome.js";
import { $, busy, code, confirmed, copyButton, el, facts, problem, say, time } from "./show.js";

const PAGE = 20;
const MOST = 200; // as many as the router lists at once

const cards = new Map(); // by the approval's id: a task that waits does not change
let wanted = PAGE;
let turn = 0;
let readable = false;
let whenKey = () => {};

/** Loads the tasks that wait and shows them. */
export async function load() {
  const mine = ++turn;
  try {
    const answer = await ask("GET", `autopilot/approvals?status=awaiting_approval&limit=${wanted}`);
    await Promise.all(answer.approvals.filter((one) => !cards.has(one.id)).map(read));
    if (mine === turn) show(answer.approvals, answer.next !== null);
    readable = true;
  } catch (error) {
    readable = false;
    if (mine === turn) unreadable(error);
  }
}

/** Loads them again, unless that would only be refused again. */
export async function refresh() {
  if (readable && !$("approvals").hasAttribute("aria-busy")) await load();
}

async function read({ id }) {
  try {
    const { approval } = await ask("GET", `autopilot/approvals/${encodeURIComponent(id)}`);
    if (approval.status === "awaiting_approval") cards.set(id, card(approval));
  } catch (error) {
    if (error.document?.status !== 404) throw error;
  }
}

function unreadable(error) {
  count("", "");
  cards.clear();
  $("approvals-key").replaceChildren();
  const refused = error.document?.status === 403;
  $("approvals-list").replaceChildren(refused
    ? el("div", { class: "empty" }, el("p", {}, "With this key you cannot see what waits: that takes the scope ", el("code", {}, "operate"), "."))
    : problem(error));
}

function show(waiting, more) {
  const ids = new Set(waiting.map((one) => one.id));
  for (const id of [...cards.keys()].filter((one) => !ids.has(one))) cards.delete(id);
  const sorted = [...cards.values()].sort((a, b) => a.dataset.until.localeCompare(b.dataset.until));
  const told = sorted.length === 1 ? "1 task waits for approval" : `${sorted.length} tasks wait for approval`;
  count(sorted.length ? `${sorted.length}${more ? "+" : ""}` : "", told);
  const missing = sorted.length > 0 && !hasKey();
  if (missing !== $("approvals-key").hasChildNodes()) $("approvals-key").replaceChildren(...(missing ? [keyless()] : []));
  place(sorted, more);
}

function keyless() {
  return el("div", { class: "notice" },
    el("p", {}, el("strong", {}, "Without a key nobody can decide"), ": anybody on this machine may call, whoever asked as well."),
    ...aKey("Enter key"));
}

function count(number, told) {
  for (const node of document.querySelectorAll(".waiting")) node.textContent = number;
  if ($("approvals-told").textContent !== told) $("approvals-told").textContent = told;
}

/** Puts the cards in the list; one that stays is not touched, for somebody may be reading it. */
function place(sorted, more) {
  const list = $("approvals-list");
  const focused = list.contains(document.activeElement);
  const shown = sorted.length ? [...sorted] : [nothing()];
  if (more) shown.push(wanted < MOST
    ? el("button", { type: "button", click: (event) => busy(event.currentTarget, further) }, "Load more")
    : el("p", { class: "hint" }, "More wait than are shown here: ", el("code", {}, "autopilot approvals list"), " has them all."));
  for (const node of [...list.children].filter((one) => !shown.includes(one))) node.remove();
  shown.forEach((node, at) => { if (list.children[at] !== node) list.insertBefore(node, list.children[at] ?? null); });
  if (focused && !list.contains(document.activeElement)) $("approvals").focus({ preventScroll: true });
}

async function further() {
  wanted = Math.min(wanted + PAGE, MOST);
  await load();
}

function nothing() {
  return el("div", { class: "empty" },
    el("p", {}, "No task waits for approval."),
    el("p", {}, "Which ones wait is said by ", el("code", {}, "AUTOPILOT_REQUIRE_APPROVAL"), ", or by ",
      el("code", {}, "requires_approval"), " in a registration."));
}

function card(approval) {
  const name = approval.task ?? approval.capability;
  const button = (how, label, kind) => el("button", {
    type: "button", class: kind, "aria-label": `${label} ${name}, asked for by ${approval.requested_by}`,
    click: (event) => busy(event.currentTarget, () => decide(approval, how)),
  }, label);
  return el("article", { class: "card", "data-until": approval.expires_at, "aria-label": `${name}, ${approval.id}` },
    el("h3", {}, name),
    facts([
      ["Asked by", approval.requested_by],
      ["At", time(approval.requested_at)],
      ["Ends", time(approval.expires_at)],
      ["Capability", el("code", {}, approval.capability)],
      ["Only for", approval.autopilot],
      ["Approval", el("span", { class: "copyable" }, el("code", {}, approval.id), copyButton(approval.id, "approval id"))],
    ]),
    code(readably(approval.text ?? ""), `Task of ${approval.id}`, approval.text ?? ""),
    approval.redacted && el("p", { class: "hint" }, "Secrets in it are not shown. They are sent."),
    el("p", { class: "hint" }, "Its digest, a SHA-256: ", el("code", {}, approval.digest)),
    el("div", { class: "buttons" }, button("approve", "Approve", "main"), button("refuse", "Refuse", "danger")));
}

/**
 * Returns a JSON text on lines of its own, with each number as it was written, since a parser would round it,
 * and with the signs that nobody sees, or that turn the direction of others, as escapes.
 */
function readably(text) {
  let indent = "";
  return text.replace(/"[^"\\]*(?:\\.[^"\\]*)*"|\s+|\{\}|\[\]|[{}[\],:]/g, (part) => {
    if (part === ":") return ": ";
    if (part === ",") return `,\n${indent}`;
    if (part === "{" || part === "[") return `${part}\n${(indent += "  ")}`;
    if (part === "}" || part === "]") return `\n${(indent = indent.slice(2))}${part}`;
    return part.startsWith('"') ? part.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, escaped) : part.trim();
  });
}

const escaped = (sign) => sign.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");

async function decide(approval, how) {
  if (!hasKey()) return newKey();
  const name = approval.task ?? approval.capability;
  const text = [
    el("p", {}, how === "approve" ? "It is sent at once, as it is shown. That cannot be taken back." : "It is never sent. That cannot be taken back."),
    el("p", { class: "hint" }, "Digest ", el("code", {}, approval.digest)),
  ];
  if (!(await confirmed(`${how === "approve" ? "Approve" : "Refuse"} ${name}?`, text, how === "approve" ? "Approve and send" : "Refuse"))) return;
  say($("approvals-status"), how === "approve" ? "Sending" : "Refusing", `${name} …`);
  $("approvals-body").replaceChildren();
  $("approvals-result").hidden = false;
  try {
    const answer = await ask("POST", `autopilot/approvals/${encodeURIComponent(approval.id)}/${how}`, { digest: approval.digest });
    $("approvals-body").replaceChildren(...(how === "approve" ? sent(approval, answer) : refused(name)));
  } catch (error) {
    $("approvals-body").replaceChildren(problem(error), ...undecided(approval, error.document?.status));
  }
  await load();
  $("approvals-result").focus();
}

function refused(name) {
  say($("approvals-status"), "refused", `${name}: nothing was sent`);
  return [];
}

function sent(approval, answer) {
  if (answer.outcome) return outcome($("approvals-status"), answer.outcome);
  const name = approval.task ?? approval.capability;
  const { code: word, detail } = answer.approval.error ?? {};
  say($("approvals-status"), "no answer", `${name} is approved, but got no answer`, "failed");
  return [
    el("p", {}, detail, " ", el("code", {}, word)),
    el("p", {}, "You may send it again, as the same task: what was done already is not done twice."),
    el("div", { class: "buttons" },
      el("button", { type: "button", click: (event) => busy(event.currentTarget, () => decide(approval, "approve")) }, "Send again")),
  ];
}

/** Says what a decision that went wrong has changed, and returns what to do about it. */
function undecided(approval, status) {
  const refused = status >= 400 && status < 500;
  say($("approvals-status"), "failed", refused ? "nothing was decided" : "it is not known whether that was decided");
  if (!refused) return [el("p", {}, "What came of it is told by ", el("code", {}, `autopilot approvals show ${approval.id}`), ".")];
  if (status !== 403) return [];
  return [el("div", { class: "notice" },
    el("p", {}, `Whoever asked cannot decide. This was asked for by ${approval.requested_by}: if that is you, it takes somebody else.`),
    ...aKey("Enter another key"))];
}

/** Returns how somebody gets a key to decide with, and where it goes. */
function aKey(label) {
  // With `read` the rest of the page goes on; without `plan` it also decides what a schedule asked for.
  const command = "autopilot keys create second operate read";
  return [
    el("p", { class: "copyable" }, "A key of somebody else is made by ", el("code", {}, command), copyButton(command, "command")),
    el("p", {}, el("button", { type: "button", class: "small", click: newKey }, label), " ",
      "It is for this tab; Forget key at the top goes back."),
  ];
}

async function newKey() {
  if (!(await enterKey("", "A key to decide with"))) return;
  $("approvals-result").hidden = true;
  await whenKey();
  $("approvals").focus({ preventScroll: true });
}

/** Makes the section work; `keyed` is called when another key was entered. */
export function start(keyed) {
  whenKey = keyed;
}
