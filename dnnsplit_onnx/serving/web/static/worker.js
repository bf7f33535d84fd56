/** Runs the client beside the page, so that the page stays quick while a slice computes. */
import { open } from "./dnnsplit.js";
import { choices, crossing, fresh, madeUp, profile } from "./measure.js";

let client = null;
/** The sequence under way, of a model that keeps states. @type {import("./states.js").Conversation | null} */
let talk = null;

async function runtime(file) {
  const ort = await import(`./${file}`);
  ort.env.logLevel = "error";
  // Threads share memory, for which a page must be isolated from others.
  if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1;
  return ort;
}

/** WebGPU where there is one, else WASM. */
async function backends({ wasm, webgpu }) {
  const adapter = webgpu && (await navigator.gpu?.requestAdapter().catch(() => null));
  if (!adapter) return { ort: await runtime(wasm), backend: "wasm" };
  return { ort: await runtime(webgpu), backend: "webgpu", spare: () => runtime(wasm) };
}

/** The next request of a sequence, which goes on as long as the cut is not moved. */
async function next(inputs, cuts, isFixed) {
  if (talk?.step > 0 && talk.wanted === cuts.join()) {
    const staying = client.routes.states.map(({ input }) => input);
    inputs = Object.fromEntries(Object.entries(inputs).filter(([name]) => !staying.includes(name)));
  } else {
    const { Conversation } = await import("./states.js");
    talk = Object.assign(new Conversation(client, isFixed ? cuts : undefined), { wanted: cuts.join() });
  }
  return talk.infer(inputs);
}

/** Requests of the sequence so far, and the bytes that are kept here for it. */
function kept() {
  const tensors = Object.values(talk?.kept ?? {});
  return talk && { step: talk.step, nbytes: tensors.reduce((sum, { data }) => sum + (data.byteLength ?? 0), 0) };
}

const calls = {
  async open({ token }) {
    const manifest = new URL("manifest.json", self.location.href);
    const { runtime: files, url } = await (await fetch(manifest, { cache: "no-cache" })).json();
    const chosen = await backends(files);
    await client?.close();
    talk = null;
    client = await open(manifest, { ...chosen, token, url: url || self.location.origin });
    client.onReach = (reach, reason) => self.postMessage({ event: "reach", reach, reason });
    const { routes, links, cuts, remote } = client;
    const { manifest: { model, bindings } } = routes;
    const tiers = await remote?.probe();
    if (tiers && !tiers[0].ready) {
      client.reach = 0;
      client.reason = tiers[0].error ?? "it is not ready";
    }
    return {
      backend: chosen.backend,
      isIsolated: self.crossOriginIsolated,
      hasGpu: Boolean(navigator.gpu),
      tiers: routes.tiers,
      mine: routes.mine,
      isBottom: routes.isBottom,
      links,
      cuts,
      choices: choices(routes).map((one) => ({ cuts: one, nbytes: crossing(routes, one) })),
      size: routes.size,
      states: routes.states.length,
      manifest: { model, inputs: fresh(routes), bindings, version: routes.manifest.runtime.version },
      url: remote?.url,
      down: client.reach < links ? client.reason : null,
    };
  },
  madeUp: ({ ports, bindings }) => madeUp(ports, bindings),
  async infer({ inputs, cuts, isFixed }) {
    if (!isFixed) client.cuts = cuts;
    const answer = client.routes.states.length
      ? await next(inputs, cuts, isFixed)
      : await client.infer(inputs, isFixed ? { cuts } : {});
    const { backend, notes, ort } = client.runner;
    return { ...answer, backend, threads: ort.env.wasm.numThreads, notes: [...notes], kept: kept() };
  },
  forget() {
    talk = null;
  },
  profile: ({ budget_s, machine }) => profile(client, {
    budget_s,
    machine,
    onProgress: (share, what) => self.postMessage({ event: "progress", share, what }),
  }),
};

self.onmessage = async ({ data: { id, call, given } }) => {
  try {
    self.postMessage({ id, ok: await calls[call](given) });
  } catch (error) {
    self.postMessage({ id, error: { name: error.name, message: error.message, status: error.status ?? 0 } });
  }
};
