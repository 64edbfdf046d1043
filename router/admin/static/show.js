// Builds what the page shows. Text from the API becomes text nodes only: nothing here reads it as HTML.

export const $ = (id) => document.getElementById(id);

/** Returns an element. A function among the attributes listens to the event of its name. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Returns a table. A row is a list of cells, each a text, a node or a list of them. */
export function table(caption, columns, rows, kind = "") {
  return el("table", { role: "table", class: kind },
    el("caption", { class: "sr" }, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" },
      columns.map((name) => el("th", { role: "columnheader", scope: "col" }, name)))),
    el("tbody", { role: "rowgroup" }, rows.map((cells) => row(columns, cells))));
}

/** Returns a row of such a table. */
export function row(columns, cells) {
  // The roles say what the narrow layout, which makes cards of the rows, would otherwise hide.
  return el("tr", { role: "row" }, cells.map((cell, at) =>
    el("td", { role: "cell", "data-label": columns[at] }, el("div", {}, cell ?? ""))));
}

/** Returns a mark that says a state in a word, with a shape and a colour of its own. */
export function mark(word, tone = word) {
  return el("span", { class: `mark ${TONES[tone] ?? "plain"}` }, word);
}

const TONES = {
  healthy: "good", ok: "good", created: "good", active: "good", chosen: "good", ready: "good", live: "good",
  degraded: "warn", blocked: "warn", "waits for approval": "warn", "not live": "warn", "not ready": "warn", create: "warn", missing: "warn",
  down: "bad", failed: "bad", unhealthy: "bad",
};

/** Returns small labels in a row. */
export function chips(texts) {
  return el("ul", { class: "chips" }, texts.map((text) => el("li", {}, text)));
}

/** Returns names and values; those without a value are left out. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: "facts" }, shown.map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** Returns a link that opens apart, or its text alone when it is no web address. */
export function link(address) {
  if (!/^https?:\/\//i.test(address) || !URL.canParse(address)) return address;
  return el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, address);
}

/** Returns a button that copies a text; `what` says of what, to those who don't see where it stands. */
export function copyButton(text, what) {
  const button = el("button", { type: "button", class: "small", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text)) ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text); // there is none where the page came over plain http
    return true;
  } catch {
    const area = el("textarea", { class: "sr", "aria-hidden": "true" });
    area.value = text;
    const place = document.querySelector("dialog[open]") ?? document.body;
    place.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Returns JSON with a button that copies it. Very long texts in it are shown by their beginning. */
export function json(value, what) {
  const shown = JSON.stringify(value, (_, part) => (typeof part === "string" ? beginning(part) : part), 2);
  return code(shown, what, JSON.stringify(value, null, 2));
}

/** Returns a text in a frame of its own, with a button that copies it, or rather `whole`. */
export function code(text, what, whole = text) {
  return el("div", { class: "code" },
    copyButton(whole, what), el("pre", { tabindex: "0", role: "group", "aria-label": what }, text));
}

const MAX_SHOWN = 600;

function beginning(text) {
  if (text.length <= MAX_SHOWN) return text;
  return `${text.slice(0, MAX_SHOWN)} … ${text.length - MAX_SHOWN} more characters: Copy has them all`;
}

/** Returns a problem as people read it: what, why, what to do, and each wrong field. */
export function problem(error) {
  const told = error.document ?? { title: "Something went wrong on this page", detail: String(error.message) };
  const known = told.did_you_mean ?? [];
  return el("div", { class: "problem", role: "alert" },
    el("p", { class: "problem-title" }, told.title ?? told.error ?? "It did not work",
      told.status && el("span", { class: "muted" }, ` ${told.status}`)),
    told.detail && told.detail !== told.title && !told.errors && el("p", {}, told.detail),
    told.errors && fieldErrors(told.errors),
    told.hint && el("p", {}, told.hint),
    known.length > 0 && el("p", {}, `Did you mean ${known.join(", ")}?`),
    told.trace_id && el("p", { class: "hint" }, "Trace ", el("code", {}, told.trace_id)));
}

function fieldErrors(errors) {
  return el("ul", { class: "field-errors" }, errors.map((one) =>
    el("li", {}, el("code", {}, one.field || "body"), " ", one.message)));
}

/** Runs `work` with a button disabled and its section marked busy. */
export async function busy(button, work) {
  const section = button.closest("section");
  const buttons = [...section.querySelectorAll("button")].filter((one) => !one.disabled);
  const focused = document.activeElement;
  section.setAttribute("aria-busy", "true");
  for (const one of buttons) one.disabled = true;
  try {
    await work();
  } finally {
    section.removeAttribute("aria-busy");
    for (const one of buttons) one.disabled = false;
    // Disabling took the focus away; it goes back unless it has been moved on purpose.
    if (buttons.includes(focused) && document.activeElement === document.body) focused.focus();
  }
}

/** Asks before something is done. Returns whether to. */
export function confirmed(title, content, yes) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-text").replaceChildren(...[content].flat());
  $("confirm-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Says what came of something, where it is read out. `tone` colours the first word. */
export function say(node, word, rest, tone = word) {
  node.classList.remove("muted");
  node.replaceChildren(mark(word, tone), " ", ...[rest].flat());
}

/** Returns "1 bucket" or "2 buckets". */
export function counted(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

/** Returns a duration in milliseconds as text. */
export function milliseconds(number) {
  if (typeof number !== "number") return "";
  return number < 1000 ? `${Math.round(number * 10) / 10} ms` : `${Math.round(number / 100) / 10} s`;
}

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
const DAY = { year: "numeric", month: "short", day: "numeric" };

/** Returns a time of the API (RFC 3339) as it is here: that of another day with its date. */
export function time(text) {
  const at = new Date(text);
  if (Number.isNaN(at.valueOf())) return text;
  const today = at.toDateString() === new Date().toDateString();
  return el("time", { datetime: text, title: text }, at.toLocaleString(undefined, today ? CLOCK : { ...DAY, ...CLOCK }));
}
