// The client library in Node, driven line by line: {id, call, ...} in, {id, ok} or {id, error} out.
// argv: JSON of {library, site, url, ort, options}. Without `ort` no slice can run here.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";

const { library, site, url, ort, options } = JSON.parse(process.argv[2]);
const { TYPES, open } = await import(pathToFileURL(`${library}/dnnsplit.js`));
const { Conversation } = await import(pathToFileURL(`${library}/states.js`));
const { choices, profile } = await import(pathToFileURL(`${library}/measure.js`));
const runtime = ort ? await import(pathToFileURL(`${ort}/ort.node.min.mjs`)) : null;
if (runtime) {
  runtime.env.wasm.numThreads = 1;
  runtime.env.logLevel = "error";
}

// Node's fetch reads no files.
async function fetchAny(address, init) {
  if (new URL(address).protocol !== "file:") return fetch(address, init);
  const body = await readFile(fileURLToPath(new URL(address).href.split("?")[0])).catch(() => null);
  return new Response(body, { status: body ? 200 : 404 });
}

const read = ([name, { dtype, shape, data }]) => {
  if (dtype === "string") return [name, { dtype, shape, data }];
  const bytes = Uint8Array.from(Buffer.from(data, "base64"));
  return [name, { dtype, shape, data: new TYPES[dtype][2](bytes.buffer) }];
};
const write = ([name, { dtype, shape, data }]) => {
  if (dtype === "string") return [name, { dtype, shape, data: [...data] }];
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return [name, { dtype, shape, data: bytes.toString("base64") }];
};
const each = (tensors, how) => Object.fromEntries(Object.entries(tensors).filter(([, one]) => one).map(how));

const calls = {
  choices: (client) => choices(client.routes),
  reach: (client) => client.reach,
  fell: () => fell,
  notes: (client) => [...client.runner.notes],
  backend: (client) => client.runner.backend,
  async infer(client, { inputs, how }) {
    const answer = await client.infer(each(inputs, read), how);
    return { ...answer, outputs: each(answer.outputs, write) };
  },
  // The next request of a conversation, by its name.
  async talk(client, { inputs, who = "", cuts, how }) {
    if (!talks.has(who)) talks.set(who, new Conversation(client, cuts));
    const answer = await talks.get(who).infer(each(inputs, read), how);
    return { ...answer, outputs: each(answer.outputs, write) };
  },
  profile: (client, { budget_s }) => profile(client, { budget_s }),
  // Median milliseconds of a request, of what it spends here and on the wire, and of a bare fetch of its bytes.
  async overhead(client, { inputs, cuts, runs }) {
    const given = each(inputs, read);
    const route = client.routes.route(cuts);
    const { bytes, jsonLength } = client.remote.body(route, given, 30);
    const headers = { "Content-Type": "application/octet-stream", "Inference-Header-Content-Length": String(jsonLength) };
    const times = [[], []];
    for (let run = 0; run < runs + 5; run += 1) {
      const start = performance.now();
      await client.infer(given, { cuts });
      const middle = performance.now();
      const response = await fetch(client.remote.url + client.remote.path + "/infer", { method: "POST", body: bytes, headers });
      await response.arrayBuffer();
      if (run >= 5) {
        times[0].push(middle - start);
        times[1].push(performance.now() - middle);
      }
    }
    const median = (all) => all.sort((a, b) => a - b)[Math.floor(all.length / 2)];
    return { nbytes: bytes.length, client_ms: median(times[0]), fetch_ms: median(times[1]) };
  },
};

let client = null;
const talks = new Map();
let fell = 0; // how often a link went down
const watched = async (opening) => {
  const opened = await opening;
  let before = opened.reach;
  opened.onReach = (reach) => {
    fell += reach < before ? 1 : 0;
    before = reach;
  };
  return opened;
};
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const { id, call, ...given } = JSON.parse(line);
  // Not waited for: requests may be under way together.
  (async () => {
    client ??= watched(open(pathToFileURL(`${site}/manifest.json`), { ort: runtime, spare: async () => runtime, url, fetch: fetchAny, ...options }));
    return calls[call](await client, given);
  })().then(
    (ok) => say({ id, ok: ok ?? null }),
    ({ name, message, status, link }) => say({ id, error: { name, message, status, link } }),
  );
}
process.exit(0);
