// From a capability's JSON Schema: a meta to begin with, and a list of its fields. The schema is a stranger's,
// so its depth and size are bounded and its regular expressions are never run.

const MAX_DEPTH = 5;
const MAX_FIELDS = 40;

/** Fields that are worth showing though they may be left out. */
const TELLING = new Set([
  "pageType", "assetType", "description", "from", "subject", "text", "email", "status", "slug", "task", "at", "last4",
]);

/** What a text field of a name might hold; the first that fits counts. */
const TEXTS = [
  [/e?mail|^(from|to|reply_to)$/i, "ada@example.com"],
  [/url|href|endpoint|link/i, "https://example.com/"],
  [/base64/i, "SGVsbG8="],
  [/filename/i, "hello.txt"],
  [/content_?type/i, "text/plain"],
  [/html/i, "<h1>Hello</h1>"],
  [/currency/i, "usd"],
  [/language|locale/i, "en"],
  [/phone/i, "+1 555 0100"],
  [/last4/i, "4242"],
  [/slug/i, "hello"],
  [/^task$/, "run_payout_batch"],
  [/course/i, "Data course"],
  [/description/i, "Welcome page for new students"],
  [/subject|title|headline/i, "A question about your courses"],
  [/name$/i, "Ada Student"],
  [/(^|_)id$|Id$/, "example-1"],
  [/text|body|message|note/i, "Hello, what does the data course cost, and when does it start?"],
];

/** Returns a meta with what is required and what is telling. */
export function example(schema) {
  const meta = valueOf(schema ?? {}, "", schema ?? {}, 0);
  return meta && typeof meta === "object" && !Array.isArray(meta) ? meta : {};
}

/** Returns the fields of an object schema: name, type, whether required, description. */
export function fields(schema) {
  const own = resolve(schema ?? {}, schema ?? {});
  const required = listOf(own.required);
  return Object.entries(objectOf(own.properties)).slice(0, MAX_FIELDS).map(([name, field]) => {
    const told = resolve(field, schema);
    return { name, type: typeOf(field, schema, 0), required: required.includes(name), description: told.description ?? "" };
  });
}

function valueOf(schema, name, root, depth) {
  const own = resolve(schema, root);
  const choices = listOf(own.enum);
  const alternatives = listOf(own.anyOf ?? own.oneOf).filter((one) => one?.type !== "null");
  if (own.const !== undefined) return own.const;
  if (listOf(own.examples).length > 0) return own.examples[0];
  if (choices.length > 0) return choices.includes("text/plain") ? "text/plain" : own.default ?? choices[0];
  if (alternatives.length > 0) return depth < MAX_DEPTH ? valueOf(alternatives[0], name, root, depth + 1) : null;
  switch (kindOf(own)) {
    case "object": return depth < MAX_DEPTH ? fill(own, root, depth) : {};
    case "array": return own.minItems > 0 && depth < MAX_DEPTH ? [valueOf(own.items ?? {}, name, root, depth + 1)] : [];
    case "integer":
    case "number": return own.default ?? Math.min(Math.max(own.minimum ?? 1000, 1000), own.maximum ?? 1000);
    case "boolean": return own.default ?? false;
    default: return own.default || textFor(name, own);
  }
}

function fill(own, root, depth) {
  const required = listOf(own.required);
  const filled = {};
  for (const [name, field] of Object.entries(objectOf(own.properties)).slice(0, MAX_FIELDS)) {
    if (required.includes(name) || TELLING.has(name)) filled[name] = valueOf(field, name, root, depth + 1);
  }
  return filled;
}

function textFor(name, own) {
  const tomorrow = new Date(Date.now() + 86_400_000).toISOString();
  if (own.format === "date-time" || name === "at") return `${tomorrow.slice(0, 19)}Z`;
  if (own.format === "date" || /date$/i.test(name)) return tomorrow.slice(0, 10);
  if (own.format === "email") return "ada@example.com";
  const found = TEXTS.find(([pattern]) => pattern.test(name));
  return (found?.[1] ?? "example").slice(0, own.maxLength ?? 200);
}

function typeOf(schema, root, depth) {
  const own = resolve(schema, root);
  const choices = listOf(own.enum);
  if (choices.length > 0) return choices.map(String).join(" | ");
  if (own.const !== undefined) return String(own.const);
  const alternatives = listOf(own.anyOf ?? own.oneOf);
  if (alternatives.length > 0 && depth < MAX_DEPTH) {
    const types = alternatives.map((one) => typeOf(one, root, depth + 1)).filter((type) => type !== "null");
    return [...new Set(types)].join(" | ");
  }
  if (own.type === "array" && depth < MAX_DEPTH) return `list of ${typeOf(own.items ?? {}, root, depth + 1)}`;
  return kindOf(own) ?? "anything";
}

function kindOf(own) {
  if (Array.isArray(own.type)) return own.type.find((type) => type !== "null");
  return own.type ?? (own.properties ? "object" : undefined);
}

/** Follows references within the document; what cannot be followed counts as anything. */
function resolve(schema, root) {
  let own = objectOf(schema);
  for (let hops = 0; typeof own.$ref === "string"; hops += 1) {
    if (hops > MAX_DEPTH || !own.$ref.startsWith("#/")) return {};
    const path = own.$ref.slice(2).split("/");
    own = objectOf(path.reduce((node, key) => (Object.hasOwn(objectOf(node), key) ? node[key] : undefined), root));
  }
  return own;
}

const listOf = (value) => (Array.isArray(value) ? value : []);
const objectOf = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
