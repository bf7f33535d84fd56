/**
 * What this device takes for each segment between candidate cuts, and what the link takes: a
 * profile that `dnnsplit-onnx plan` reads as one of provider `web`.
 */
import { Deadline } from "./remote.js";
import { TYPES, count } from "./wire.js";

const WARMUP = 2;
const FEWEST = 5;
const MOST = 200;
const LINK_NBYTES = 1 << 20;
const LINK_RUNS = 9;
const LINK_S = 20;

/** All cuts at this page's own end of the line that there are slices for. @param {import("./routes.js").Routes} routes */
export function choices(routes) {
  const link = routes.isBottom ? 0 : routes.cuts.length - 1;
  const all = Object.keys(routes.manifest.routes).map((key) => Number(key.split(",")[link]));
  const positions = [...new Set(all)].sort((a, b) => a - b);
  const moved = (at) => (cut, other) => (other === link ? at : other < link ? Math.min(cut, at) : Math.max(cut, at));
  return positions.map((at) => routes.cuts.map(moved(at))).filter((cuts) => routes.has(cuts));
}

/** Bytes that cross this page's link, null if a size is not known. @param {import("./routes.js").Routes} routes @param {number[]} cuts */
export function crossing(routes, cuts) {
  const { leg, links } = routes.route(cuts);
  const ports = !links ? [] : routes.isBottom ? leg.arrives.map((name) => routes.manifest.ports[name]) : leg.answers;
  const { bindings } = routes.manifest;
  const nbytes = ports.map(({ name, dtype, shape }) => (shape ?? [null]).reduce(
    (product, size, axis) => product * (typeof size === "number" ? size : bindings[size ?? `${name}.${axis}`] ?? NaN),
    TYPES[dtype][2]?.BYTES_PER_ELEMENT ?? NaN,
  ));
  const total = nbytes.reduce((sum, one) => sum + one, 0);
  return Number.isNaN(total) ? null : total;
}

/** The inputs that a request brings: all but states, unless they stay for a whole sequence. @param {import("./routes.js").Routes} routes */
export function fresh({ inputs, states }) {
  const renewed = states.filter(({ output }) => output !== null).map(({ input }) => input);
  return inputs.filter(({ name }) => !renewed.includes(name));
}

/** @param {number[]} all */
export function median(all) {
  const sorted = [...all].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Half the distance between the quartiles. @param {number[]} all */
function spread(all) {
  const sorted = [...all].sort((a, b) => a - b);
  return (sorted[Math.floor(0.75 * (sorted.length - 1))] - sorted[Math.floor(0.25 * (sorted.length - 1))]) / 2;
}

/**
 * Made-up values for the ports of a slice: normal-like numbers, 0 or 1 for integers.
 * @param {import("./types.js").Port[]} ports @param {Record<string, number>} bindings
 * @returns {import("./types.js").Tensors}
 */
export function madeUp(ports, bindings) {
  let seed = 1;
  const next = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const value = {
    float: () => next() + next() + next() - 1.5,
    double: () => next() + next() + next() - 1.5,
    float16: () => (next() < 0.5 ? 0x3800 : 0xb400), // 0.5 and -0.25
    uint8: () => Math.floor(next() * 256),
    string: () => `s${Math.floor(next() * 10)}`,
    int64: () => BigInt(next() < 0.5),
    uint64: () => BigInt(next() < 0.5),
  };
  return Object.fromEntries(ports.map(({ name, dtype, shape }) => {
    const sizes = (shape ?? []).map((size, axis) => (typeof size === "number" ? size : bindings[size ?? `${name}.${axis}`] ?? 1));
    const one = value[dtype] ?? (() => Number(next() < 0.5));
    const all = Array.from({ length: count(sizes) }, one);
    const Elements = TYPES[dtype][2];
    return [name, { dtype, shape: sizes, data: Elements ? Elements.from(all) : all }];
  }));
}

/**
 * Measures all cuts of a client's page, and the link if there is one.
 * @param {import("./dnnsplit.js").Client} client
 * @param {{budget_s?: number, inputs?: import("./types.js").Tensors, onProgress?: (share: number, what: string) => void,
 *   machine?: Record<string, string | number>}} [how] seconds for all of it; what is known of the machine
 * @returns {Promise<any>} The profile.
 */
export async function profile(client, { budget_s = 20, inputs, onProgress = () => {}, machine = {} } = {}) {
  const { routes, runner } = client;
  const { manifest } = routes;
  const given = inputs ?? madeUp(routes.inputs, manifest.bindings);
  const ours = (start, stop) => routes.slices.find((slice) => slice.start === start && slice.stop === stop);
  const whole = ours(0, routes.size);
  if (!whole) throw new Error("this site has no slice of the whole model: split --all-candidates");
  const at = routes.isBottom ? (position) => ours(0, position) : (position) => ours(position, routes.size);
  const positions = [...new Set(routes.slices.flatMap(({ start, stop }) => [start, stop]))]
    .filter((position) => position > 0 && position < routes.size && at(position))
    .sort((a, b) => a - b);
  const empty = await emptySession(runner, manifest.empty);
  const times = { whole: [], empty: [] };
  const each_s = budget_s / (positions.length + 1);
  const parts = [];
  for (const [done, position] of [...positions, null].entries()) {
    onProgress(done / (positions.length + 1), position === null ? "the whole model" : `nodes up to ${position}`);
    const record = position === null ? null : at(position);
    const values = record ? await below(client, position, given) : given;
    const taken = { record: [], whole: [] };
    const end = performance.now() + each_s * 1e3;
    // In turns, so that a device that slows down slows both.
    for (let run = -WARMUP; run < FEWEST || (run < MOST && performance.now() < end); run += 1) {
      const pair = [(await runner.run(whole, given)).compute_s, record ? (await runner.run(record, values)).compute_s : 0];
      const nothing = await empty();
      if (run < 0) continue;
      times.empty.push(nothing);
      taken.whole.push(pair[0]);
      taken.record.push(pair[1]);
    }
    if (record) parts.push({ position, whole: median(taken.whole), seconds: median(taken.record), spread_s: spread(taken.record), runs: taken.record.length });
    times.whole.push(...taken.whole);
  }
  const link = client.remote ? await measureLink(client, given) : null;
  onProgress(1, "done");
  // Nothing that computes takes less than a run of nothing: where it seems so, the machine was busy.
  const whole_s = median(times.whole);
  const overhead_s = Math.min(median(times.empty), whole_s, ...parts.map(({ seconds }) => seconds));
  return written(client, parts, whole_s, overhead_s, { link, machine });
}

/**
 * What a link takes: requests, less what tiers compute, by their bytes. So all that a request pays
 * for on both sides is in it: reading, writing, the protocol. Where no two cuts send different
 * bytes over this link alone, bytes that mean nothing tell the rate.
 * @param {import("./dnnsplit.js").Client} client @param {import("./types.js").Tensors} inputs
 * @returns {Promise<{bandwidth_mbps: number, delay_ms: number} | null>}
 */
export async function measureLink(client, inputs) {
  try {
    const ways = extremes(client.routes);
    const brought = Object.fromEntries(fresh(client.routes).map(({ name }) => [name, inputs[name]]));
    const taken = ways.map(() => []);
    for (let run = -1; run < LINK_RUNS; run += 1) {
      for (const [at, cuts] of ways.entries()) {
        const { hop, seconds, tiers } = await client.infer(brought, { cuts, deadline_s: LINK_S });
        const computing_s = tiers.reduce((sum, { compute_s }) => sum + compute_s, 0);
        if (run >= 0) taken[at].push([hop.sent_nbytes + hop.received_nbytes, seconds - computing_s]);
      }
    }
    const [least, most] = taken.map((all) => [all[0][0], median(all.map(([, seconds]) => seconds))]);
    const bare = await bareLink(client);
    const fitted = most && most[1] > least[1] ? (most[1] - least[1]) / (most[0] - least[0]) : null;
    const perByte_s = fitted ?? 8e-6 / bare.bandwidth_mbps;
    const delay_s = least ? Math.max(0, least[1] - perByte_s * least[0]) / 2 : bare.delay_ms / 1e3;
    return { bandwidth_mbps: 8e-6 / perByte_s, delay_ms: delay_s * 1e3 };
  } catch {
    return null; // the other side measures no links
  }
}

/** Of the cuts that use this page's link alone, the one that sends least and the one that sends most. */
function extremes(routes) {
  const known = choices(routes)
    .filter((cuts) => routes.route(cuts).links === 1 && crossing(routes, cuts) !== null)
    .sort((one, other) => crossing(routes, one) - crossing(routes, other));
  const [least, most] = [known[0], known.at(-1)];
  if (known.length < 2 || crossing(routes, least) === crossing(routes, most)) return known.slice(0, 1);
  return [least, most];
}

/** What it takes to send bytes that mean nothing. */
async function bareLink(client) {
  const taken = { 1: [], [LINK_NBYTES]: [] };
  for (let run = 0; run < LINK_RUNS; run += 1) {
    for (const nbytes of [1, LINK_NBYTES]) {
      const start = performance.now();
      await client.remote.json("/v2/link", new Deadline(LINK_S), new Uint8Array(nbytes));
      taken[nbytes].push((performance.now() - start) / 1e3);
    }
  }
  const [nothing, full] = [median(taken[1]), median(taken[LINK_NBYTES])];
  return { bandwidth_mbps: (8 * LINK_NBYTES) / 1e6 / Math.max(full - nothing, 1e-4), delay_ms: (nothing * 1e3) / 2 };
}

/** What a slice reads, as the tiers below make it. */
async function below(client, position, given) {
  const { routes, remote } = client;
  if (routes.isBottom) return given;
  if (!remote) throw new Error("what crosses the cuts is made by others: a URL is needed");
  const cuts = choices(routes).find((all) => all.at(-1) === position);
  const { results } = await remote.infer(routes.route(cuts), given, new Deadline(client.deadline_s));
  return { ...given, ...results };
}

/** Runs nothing, and tells what that takes. */
async function emptySession(runner, file) {
  const port = { name: "x", dtype: "float", shape: [1], kind: "tensor" };
  const slice = { file, start: 0, stop: 0, inputs: [port], outputs: [{ ...port, name: "y" }], keeps: [], data: [] };
  const x = { dtype: "float", shape: [1], data: new Float32Array(1) };
  return async () => (await runner.run(slice, { x })).compute_s;
}

/** The profile as a file has it. */
function written(client, parts, whole_s, overhead_s, { link, machine }) {
  const { routes, runner } = client;
  const { manifest } = routes;
  // Each at the speed that the device had for the whole.
  const scaled = parts.map((part) => ({ ...part, seconds: (part.seconds * whole_s) / part.whole }));
  const other = (seconds) => Math.max(overhead_s, whole_s - seconds + overhead_s);
  const prefix = (part) => (routes.isBottom ? part.seconds : other(part.seconds));
  const ends = [{ position: 0, net: 0, runs: 0, spread_s: 0 }];
  for (const part of scaled) ends.push({ ...part, net: Math.max(prefix(part) - overhead_s, ends.at(-1).net) });
  const net = Math.max(whole_s - overhead_s, 0);
  ends.push({ position: routes.size, net, runs: scaled[0]?.runs ?? 0, spread_s: 0 });
  return {
    schema_version: 1,
    producer: `${manifest.producer}, in a browser`,
    tier: manifest.tier,
    provider: "web",
    threads: client.runner.ort.env.wasm.numThreads || 0,
    model: manifest.model.name,
    model_sha256: manifest.model.sha256,
    order: manifest.order,
    nodes: routes.size,
    bindings: manifest.bindings,
    segments: ends.slice(1).map(({ position, net: upTo, runs, spread_s }, before) => ({
      start: ends[before].position,
      stop: position,
      seconds: Math.max(0, Math.min(upTo, net) - Math.min(ends[before].net, net)),
      spread_s,
      runs,
    })),
    overhead_s,
    whole_s,
    machine: { backend: runner.backend, user_agent: globalThis.navigator?.userAgent ?? "", ...machine },
    versions: { "onnxruntime-web": manifest.runtime.version },
    parts: scaled.map((part) => ({
      position: part.position,
      below_s: routes.isBottom ? part.seconds : other(part.seconds),
      above_s: routes.isBottom ? other(part.seconds) : part.seconds,
      spread_s: part.spread_s,
      runs: part.runs,
    })),
    ...(manifest.node_order ? { node_order: manifest.node_order } : {}),
    ...(link ? { link } : {}),
  };
}
