// Runs the Worker that standard input describes, in one line of JSON, until that input ends.

import { createInterface } from "node:readline";
import { Miniflare } from "miniflare";

const lines = createInterface({ input: process.stdin });
const told = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
const runtime = new Miniflare({
  host: "127.0.0.1",
  modules: [{ type: "ESModule", path: "worker.js", contents: told.source }],
  unsafeLocalExplorer: true, // shows what KV and R2 hold, in the envelope of Cloudflare's API
  cf: false, // or it would ask the internet what to put into request.cf
  ...told.options,
});
lines.on("close", async () => {
  await runtime.dispose();
  process.exit(0);
});
console.log(`listening on ${await runtime.ready}`);
