// The job of the original Worker, for the comparison: read the task, find its capability
// and an autopilot that offers it, forward, and answer with what came back.
const CAPABILITIES = new Map([
  ["generate_page", "web.pages.generate"],
  ["generate_section", "web.section.generate"],
  ["deploy_page", "web.pages.deploy"],
  ["process_email", "email.process"],
]);

function registered(endpoint) {
  return [
    { name: "page-deployer", endpoint, capabilities: ["web.pages.deploy", "web.pages.publish"] },
    { name: "ai-employee", endpoint, capabilities: ["email.process", "email.send"] },
    { name: "ai-stylist", endpoint, capabilities: ["web.pages.generate", "web.section.generate"] },
  ];
}

async function plan(request, env) {
  const { task, meta } = await request.json();
  const capability = CAPABILITIES.get(task);
  if (!capability) return Response.json({ error: `Unknown task: ${task}` }, { status: 400 });
  const autopilot = registered(env.UPSTREAM).find((one) => one.capabilities.includes(capability));
  if (!autopilot) return Response.json({ error: `No autopilot supports ${capability}` }, { status: 422 });
  const answer = await fetch(`${autopilot.endpoint}/tasks`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ task, capability, meta: meta ?? {} }),
  });
  return Response.json(
    { autopilot: autopilot.name, ok: answer.ok, result: await answer.json() },
    { status: answer.ok ? 200 : 502 },
  );
}

export default {
  fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (request.method === "POST" && pathname === "/autopilot/plan") return plan(request, env);
    return Response.json({ error: "not found" }, { status: 404 });
  },
};
