// Edge notes: an autopilot that is one Cloudflare Worker. Texts are kept in R2, what is known of them in KV.

const CAPABILITIES = { "notes.write": write, "notes.read": read };
const TOLERANCE = 300; // seconds that a message may be old, or early
const MAX_BODY = 65536; // bytes
const HMAC = { name: "HMAC", hash: "SHA-256" };
const ID = /^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$/;

export default {
  async fetch(request, env) {
    const route = `${request.method} ${new URL(request.url).pathname}`;
    const lacking = ["NOTES", "TEXTS", "SIGNING_SECRETS"].filter((name) => !env[name]);
    if (route === "GET /health") return health(lacking);
    if (route !== "POST /tasks") return answer(404, { error: `there is no ${route}` });
    if (lacking.length) return answer(503, { error: `not configured: ${lacking.join(", ")}` });
    const body = await request.arrayBuffer();
    if (body.byteLength > MAX_BODY) return answer(413, { error: `a task has at most ${MAX_BODY} bytes` });
    const refusal = await refused(request.headers, body, env);
    if (refusal) return answer(401, { error: refusal }, { "www-authenticate": "StandardWebhooks" });
    return done(body, env);
  },
};

function health(lacking) {
  const shown = { autopilot: "edge-notes", capabilities: Object.keys(CAPABILITIES) };
  if (lacking.length) return answer(503, { status: "unhealthy", lacking, ...shown });
  return answer(200, { status: "healthy", ...shown });
}

// Why a message is not to be trusted (Standard Webhooks 1.0), or nothing.
async function refused(headers, body, env) {
  const header = (name) => headers.get(`webhook-${name}`) ?? "";
  const [id, timestamp] = [header("id"), header("timestamp")];
  if (!/^[!-\-/-~]{1,255}$/.test(id)) return "webhook-id is missing or malformed";
  if (!/^[0-9]{1,12}$/.test(timestamp)) return "webhook-timestamp is missing or malformed";
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE) return "the message is too old, or early";
  const signed = new Uint8Array(await new Blob([`${id}.${timestamp}.`, body]).arrayBuffer());
  const listed = header("signature").split(" ", 16).filter((one) => one.startsWith("v1,"));
  const signatures = listed.map((one) => bytes(one.slice(3)));
  for (const secret of env.SIGNING_SECRETS.split(" ")) {
    const raw = bytes(secret.replace(/^whsec_/, ""));
    if (!raw.length) continue; // an empty key would sign for everybody
    const key = await crypto.subtle.importKey("raw", raw, HMAC, false, ["verify"]);
    for (const signature of signatures) {
      if (!(await crypto.subtle.verify("HMAC", key, signature, signed))) continue;
      // R2 takes this once, wherever in the world it is asked; KV would not know for a minute.
      const onlyIf = new Headers({ "if-none-match": "*" });
      const first = await env.TEXTS.put(`seen/${id}`, timestamp, { onlyIf });
      return first ? "" : "this message came before";
    }
  }
  return "no signature is one of ours for this message";
}

async function done(body, env) {
  let task;
  try {
    task = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    return answer(400, { error: "the body is no JSON" });
  }
  const work = Object.hasOwn(CAPABILITIES, task?.capability) && CAPABILITIES[task.capability];
  if (!work) return answer(422, { error: `there is no capability ${task?.capability}` });
  if (!ID.test(task.meta?.id ?? "")) return answer(422, { error: "meta.id has 1 to 64 of a-z, 0-9 and -" });
  return work(task.meta, env);
}

// The text goes first and under its digest: whoever still sees what KV said before finds the text of before.
async function write({ id, text }, env) {
  if (typeof text !== "string") return answer(422, { error: "meta.text is a text" });
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const stored = await env.TEXTS.put(`texts/${id}/${sha256}`, text);
  const head = { id, bytes: stored.size, sha256, written_at: stored.uploaded.toISOString() };
  await env.NOTES.put(id, JSON.stringify(head));
  return answer(200, head);
}

async function read({ id }, env) {
  const head = await env.NOTES.get(id, "json");
  const stored = head && (await env.TEXTS.get(`texts/${id}/${head.sha256}`));
  if (!stored) return answer(404, { error: `there is no note ${id}` });
  return answer(200, { ...head, text: await stored.text() });
}

function bytes(base64) {
  try {
    return Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}

function answer(status, body, headers = {}) {
  return Response.json(body, { status, headers });
}
