/**
 * A page, or a Node process, as a tier of a model that was split.
 *
 *     import * as ort from "./ort/ort.wasm.min.mjs";
 *     import { open } from "./dnnsplit.js";
 *     const client = await open("manifest.json", { ort, url: "https://near:8000" });
 *     const answer = await client.infer({ x: { dtype: "float", shape: [1, 3], data: Float32Array.of(1, 2, 3) } });
 *
 * Each request gets exactly one answer: the model's outputs, or an error. If a link or the runtime
 * here fails, it is run on the cuts that remain while there is time: all here, or all above.
 *
 * @typedef {import("./wire.js").Tensors} Tensors
 * @typedef {{total_s: number, sent_nbytes: number, received_nbytes: number}} Hop
 * @typedef {{outputs: Tensors, cuts: number[], seconds: number, attempts: number, hop: Hop | null,
 *   tiers: import("./remote.js").Trace[]}} Answer
 */
import { Deadline, LATE, Remote } from "./remote.js";
import { Routes, misfit } from "./routes.js";
import { Runner, said } from "./runner.js";
import { DeadlineError, DeviceError, InputError, LinkError, ManifestError, ServingError } from "./wire.js";

export * from "./wire.js";

const PROBE_PAUSE_MS = 250;

/**
 * A client of a site.
 * @param {string | URL} manifest where its `manifest.json` is
 * @param {{ort: any, url?: string, token?: string, backend?: "webgpu" | "wasm", deadline_s?: number,
 *   fetch?: typeof fetch}} options onnxruntime-web; the next tier, without which all runs here
 * @throws {ManifestError} There is none of a site.
 */
export async function open(manifest, options) {
  const base = new URL(manifest, globalThis.location?.href).href;
  const fetched = options.fetch ?? globalThis.fetch;
  let data;
  try {
    const response = await fetched(base, { cache: "no-cache" });
    if (!response.ok) throw new Error(`status ${response.status}`);
    data = await response.json();
  } catch (error) {
    throw new ManifestError(`cannot read \`${base}\`: ${said(error)}`);
  }
  return new Client(data, base, options);
}

export class Client {
  /** @param {any} manifest @param {string} base @param {any} options as of `open` */
  constructor(manifest, base, { ort, url, token, backend, deadline_s = 30, fetch } = {}) {
    this.routes = new Routes(manifest);
    this.isBottom = this.routes.mine === 0;
    this.runner = new Runner(ort, base, manifest.files, { backend, fetch });
    const links = this.routes.tiers.length - 1;
    this.remote = url && links ? new Remote(this.routes, this.isBottom ? 1 : 0, url, { token, fetch }) : null;
    this.deadline_s = deadline_s;
    this.links = links;
    this.reach = this.remote ? links : 0; // how many links can be used
    this.reason = this.remote ? "" : "no URL of another tier was given";
    this.cuts = this.routes.cuts; // to be used while all is well
    /** Called when a link goes down or comes back. @type {(reach: number, reason: string) => void} */
    this.onReach = () => {};
    this.local_s = null;
    this.isClosed = false;
  }

  /** Opens the slices of some cuts on all tiers, ahead of a request. @param {number[]} [cuts] */
  async prepare(cuts = this.cuts) {
    const route = this.routes.route(cuts);
    const { record } = route.legs[this.routes.mine];
    await Promise.all([
      record && this.runner.open(record),
      this.remote && route.links && this.isBottom && this.remote.prepare(route),
    ]);
  }

  /**
   * Runs one request.
   * @param {Tensors} inputs @param {{deadline_s?: number, cuts?: number[]}} [how] these cuts and no others
   * @returns {Promise<Answer>}
   * @throws {ServingError} The inputs do not fit the model, or the request failed.
   */
  async infer(inputs, { deadline_s = this.deadline_s, cuts } = {}) {
    const start = performance.now();
    this.#check(inputs);
    const deadline = new Deadline(deadline_s);
    const broken = new Set();
    for (let attempts = 1; ; attempts += 1) {
      const route = cuts ? this.routes.route(cuts) : this.#choose(broken);
      try {
        const answer = await this.#attempt(route, inputs, deadline);
        return { ...answer, cuts: route.cuts, seconds: (performance.now() - start) / 1e3, attempts };
      } catch (error) {
        const isLink = (error instanceof LinkError || error instanceof DeadlineError) && error.status !== LATE;
        if (isLink) this.#down(error.link ?? 0, error.message);
        if (error instanceof DeviceError) broken.add(error.message);
        const mayTry = (isLink || error instanceof DeviceError) && deadline.left_s > 0;
        if (cuts || !mayTry || attempts > this.routes.tiers.length) throw error;
      }
    }
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.prober);
    return this.runner.close();
  }

  #check(inputs) {
    for (const port of this.routes.inputs) {
      const tensor = inputs[port.name];
      if (!tensor && port.kind === "optional") continue;
      const wrong = tensor ? misfit(port, tensor) : `\`${port.name}\` is missing`;
      if (wrong) throw new InputError(`input ${wrong}`);
    }
    const extra = Object.keys(inputs).find((name) => !this.routes.inputs.some((port) => port.name === name));
    if (extra) throw new InputError(`unknown input \`${extra}\``);
  }

  /** The cuts, changed as little as can be so that they use nothing that fails. */
  #choose(broken) {
    const { routes, reach } = this;
    const fits = (cuts) => cuts && routes.has(cuts) && routes.route(cuts).links <= reach;
    if (broken.size) {
      const above = this.cuts.map(() => (this.isBottom ? 0 : routes.size));
      if (reach && routes.has(above) && !routes.route(above).legs[routes.mine].record) return routes.route(above);
      throw new DeviceError([...broken].join("; "));
    }
    if (!this.isBottom) {
      const alone = this.cuts.map(() => 0);
      const found = [this.cuts, alone].find((cuts) => routes.has(cuts) && (reach || !routes.route(cuts).legs[0].record));
      if (found) return routes.route(found);
    }
    const clipped = this.cuts.map((cut, link) => (link < reach ? cut : routes.size));
    const lowest = Array.from({ length: reach + 1 }, (_, below) => reach - below);
    const alone = lowest.map((tier) => this.cuts.map((_, link) => (link < tier ? 0 : routes.size)));
    const found = this.isBottom && [this.cuts, clipped, ...alone].find(fits);
    if (found) return routes.route(found);
    throw new LinkError(`link ${reach} is down (${this.reason}), and there are no slices for the rest here`
      + ": split --all-candidates", { link: reach });
  }

  async #attempt(route, inputs, deadline) {
    const live = { ...inputs };
    let mine = null;
    let hop = null;
    const here = async () => {
      const { record, name } = route.legs[this.routes.mine];
      const start = performance.now();
      const { made, queue_s, compute_s } = record
        ? await this.runner.run(record, live) : { made: {}, queue_s: 0, compute_s: 0 };
      Object.assign(live, made);
      mine = { tier: name, queue_s, compute_s, total_s: (performance.now() - start) / 1e3 };
    };
    const there = async () => {
      const leg = route.legs[this.remote.tier];
      const wanted = this.isBottom ? leg.answers : leg.makes;
      const until = new Deadline(deadline.left_s - this.#reserve(deadline));
      const { results, ...rest } = await this.remote.infer(route, live, wanted, until);
      Object.assign(live, results);
      hop = rest;
    };
    if (this.isBottom) {
      await here();
      if (route.legs[0].goesOn) await there();
    } else {
      if (route.legs[0].record) await there();
      await here();
    }
    if (!hop) this.local_s = mine.total_s;
    const outputs = {};
    for (const { name } of this.routes.outputs) outputs[name] = live[name];
    const tiers = this.isBottom ? [mine, ...(hop?.tiers ?? [])] : [...(hop?.tiers ?? []), mine];
    return { outputs, tiers, hop };
  }

  /** What must be left of a request's time to run it here. */
  #reserve(deadline) {
    const alone = this.cuts.map(() => (this.isBottom ? this.routes.size : 0));
    if (!this.routes.has(alone)) return 0;
    const half = deadline.left_s / 2;
    return this.local_s === null ? half : Math.min(half, 2 * this.local_s);
  }

  #down(link, reason) {
    if (link >= this.reach) return;
    this.reach = link;
    this.reason = reason;
    this.onReach(link, reason);
    if (!this.prober) this.#probeSoon();
  }

  #probeSoon() {
    this.prober = setTimeout(async () => {
      const tiers = await this.remote.probe();
      if (this.isClosed) return;
      const ready = tiers.findIndex((tier) => !tier.ready);
      const before = this.reach;
      this.reach = Math.min(ready < 0 ? tiers.length : ready, this.links);
      if (this.reach > before) this.onReach(this.reach, "it answers again");
      this.prober = null;
      if (this.reach < this.links) this.#probeSoon();
      else this.reason = "";
    }, PROBE_PAUSE_MS);
    this.prober.unref?.(); // Node need not wait for it
  }
}
