/** Runs the client beside the page, so that the page stays quick while a slice computes. */
import { open } from "./dnnsplit.js";
import { choices, crossing, madeUp, profile } from "./measure.js";

let client = null;

/** WebGPU where there is one, else WASM. */
async function runtime({ wasm, webgpu }) {
  const adapter = webgpu && (await navigator.gpu?.requestAdapter().catch(() => null));
  const ort = await import(`./${adapter ? webgpu : wasm}`);
  ort.env.logLevel = "error";
  // Threads share memory, for which a page must be isolated from others.
  if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1;
  return { ort, backend: adapter ? "webgpu" : "wasm" };
}

const calls = {
  async open({ token }) {
    const manifest = new URL("manifest.json", self.location.href);
    const { runtime: files, url } = await (await fetch(manifest, { cache: "no-cache" })).json();
    const { ort, backend } = await runtime(files);
    await client?.close();
    client = await open(manifest, { ort, backend, token, url: url || self.location.origin });
    client.onReach = (reach, reason) => self.postMessage({ event: "reach", reach, reason });
    const { routes, isBottom, links, cuts, remote } = client;
    const tiers = await remote?.probe();
    if (tiers && !tiers[0].ready) {
      client.reach = 0;
      client.reason = tiers[0].error ?? "it is not ready";
    }
    return {
      backend,
      isIsolated: self.crossOriginIsolated,
      hasGpu: Boolean(navigator.gpu),
      tiers: routes.tiers,
      mine: routes.mine,
      isBottom,
      links,
      cuts,
      choices: choices(routes).map((one) => ({ cuts: one, nbytes: crossing(routes, one) })),
      size: routes.size,
      manifest: { model: routes.manifest.model, bindings: routes.manifest.bindings, version: routes.manifest.runtime.version },
      url: remote?.url,
      down: client.reach < links ? client.reason : null,
    };
  },
  madeUp: ({ ports, bindings }) => madeUp(ports, bindings),
  async infer({ inputs, cuts, isFixed }) {
    if (!isFixed) client.cuts = cuts;
    const answer = await client.infer(inputs, isFixed ? { cuts } : {});
    const { backend, notes, ort } = client.runner;
    return { ...answer, backend, threads: ort.env.wasm.numThreads, notes: [...notes] };
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
