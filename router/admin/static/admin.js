// The admin page: loads each section, and asks now and then for the router's health and for what waits.

import * as approvals from "./approvals.js";
import * as autopilots from "./autopilots.js";
import { ask, enterKey, forgetKey, showKeyButtons } from "./client.js";
import * as events from "./events.js";
import * as infra from "./infra.js";
import * as run from "./run.js";
import { $, mark } from "./show.js";

const ROUND_MILLISECONDS = 15_000;

async function health() {
  let told;
  try {
    told = await ask("GET", "health");
  } catch (error) {
    told = { status: "down", reason: error.document?.detail };
  }
  const facts = [
    told.version && `version ${told.version}`,
    told.store && `store ${told.store}`,
    typeof told.uptime === "number" && `up ${span(told.uptime)}`,
    told.reason,
  ].filter(Boolean);
  const word = told.status ?? "unknown";
  const spoken = $("router").dataset.status;
  // Only a change is read out, not the uptime of every round.
  $("router").setAttribute("aria-live", spoken === word ? "off" : "polite");
  $("router").dataset.status = word;
  $("router").replaceChildren(mark(word), ...facts.map((fact) => ` · ${fact}`));
}

function span(seconds) {
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (hours < 1) return `${minutes} min`;
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

async function registry() {
  await autopilots.load();
  await run.load(); // it offers the capabilities of those
}

const everything = () => Promise.all([health(), registry(), infra.load(), approvals.load(), events.load()]);

autopilots.start(() => Promise.all([registry(), infra.load()]));
run.start(approvals.load);
approvals.start(everything);
events.start();
infra.start();
showKeyButtons();
$("enter-key").addEventListener("click", async () => { if (await enterKey()) await everything(); });
$("forget-key").addEventListener("click", () => { forgetKey(); location.reload(); });
setInterval(() => { if (!document.hidden) Promise.all([health(), approvals.refresh()]); }, ROUND_MILLISECONDS);
everything();
