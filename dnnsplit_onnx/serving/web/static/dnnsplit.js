/**
 * A page, or a Node process, as a tier of a model that was split:
 * `await (await open("manifest.json", { ort, url })).infer({ x: { dtype: "float", shape: [1], data } })`.
 *
 * Each request gets exactly one answer: the model's outputs, or an error. If a link or the runtime
 * here fails, it is run on the cuts that remain while there is time: all here, or all above.
 *
 * @typedef {import("./wire.js").Tensors} Tensors
 * @typedef {{total_s: number, sent_nbytes: number, received_nbytes: number}} Hop
 * @typedef {{outputs: Tensors, cuts: number[], seconds: number, attempts: number, hop: Hop | null,
 *   tiers: import("./remote.js").Trace[]}} Answer
 */
import { Deadline, Remote } from "./remote.js";
import { Routes, misfit } from "./routes.js";
import { Runner, said } from "./runner.js";
import { BusyError, DeadlineError, DeviceError, InputError, LinkError, ManifestError, mayPass } from "./wire.js";

export * from "./wire.js";

const PROBE_PAUSE_MS = 250;
const MOST_ATTEMPTS = 64;

/**
 * A client of a site.
 * @param {string | URL} manifest where its `manifest.json` is
 * @param {{ort: any, url?: string, token?: string, backend?: "webgpu" | "wasm", deadline_s?: number,
 *   fetch?: typeof fetch}} options onnxruntime-web; the next tier, without which all runs here
 */
export async function open(manifest, options) {
  const base = new URL(manifest, globalThis.location?.href).href;
  const data = await (options.fetch ?? globalThis.fetch)(base, { cache: "no-cache" })
    .then((response) => (response.ok ? response.json() : Promise.reject(new Error(`status ${response.status}`))))
    .catch((error) => { throw new ManifestError(`cannot read \`${base}\`: ${said(error)}`); });
  return new Client(data, base, options);
}

export class Client {
  /** @param {any} manifest @param {string} base @param {any} options of `open` */
  constructor(manifest, base, { ort, url, token, backend, deadline_s = 30, fetch } = {}) {
    this.routes = new Routes(manifest);
    this.isBottom = this.routes.mine === 0;
    this.runner = new Runner(ort, base, manifest.files, { backend, fetch });
    const links = this.routes.tiers.length - 1;
    this.remote = url && links ? new Remote(this.routes, this.isBottom ? 1 : 0, url, { token, fetch }) : null;
    if (this.remote) this.remote.onFailure = (error) => this.#failed(error);
    this.deadline_s = deadline_s;
    this.links = links;
    this.reach = this.remote ? links : 0; // how many links can be used
    this.reason = this.remote ? "" : "no URL of another tier was given";
    this.cuts = this.routes.cuts; // to be used while all is well
    /** Called when that changes. @type {(reach: number, reason: string) => void} */
    this.onReach = () => {};
    this.local_s = null;
    this.isClosed = false;
  }

  /** Opens the slices of some cuts on all tiers, ahead of a request. */
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
   */
  async infer(inputs, { deadline_s = this.deadline_s, cuts } = {}) {
    const start = performance.now();
    this.#check(inputs);
    const deadline = new Deadline(deadline_s);
    const broken = new Set();
    let limit = this.links; // how far this request may still go
    for (let attempts = 1; ; attempts += 1) {
      const route = cuts ? this.routes.route(cuts) : this.#choose(broken, limit);
      try {
        const answer = await this.#attempt(route, inputs, deadline);
        return { ...answer, cuts: route.cuts, seconds: (performance.now() - start) / 1e3, attempts };
      } catch (error) {
        const isDevice = error instanceof DeviceError;
        const mayTry = isDevice ? !cuts : mayPass(error) && error.link !== null;
        if (!mayTry || deadline.left_s <= 0 || attempts > MOST_ATTEMPTS) throw error;
        if (isDevice) {
          if (broken.has(error.message)) throw error;
          broken.add(error.message);
        } else if (!cuts && (error instanceof LinkError || this.#pick(Math.min(error.link, this.reach)))) {
          limit = error.link;
        } else if (error instanceof BusyError && deadline.left_s > error.retry_s) {
          await new Promise((done) => { setTimeout(done, error.retry_s * 1e3); });
        } else throw error;
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

  /** The route to take, by no link from `limit` up. @param {Set<string>} broken what fails here */
  #choose(broken, limit) {
    const { routes } = this;
    const reach = Math.min(this.reach, limit);
    if (broken.size) {
      const above = this.cuts.map(() => (this.isBottom ? 0 : routes.size));
      if (reach && routes.has(above) && !routes.route(above).legs[routes.mine].record) return routes.route(above);
      throw new DeviceError([...broken].join("; "));
    }
    const cuts = this.#pick(reach);
    if (cuts) return routes.route(cuts);
    const fix = "there are no slices for the rest here: split --all-candidates";
    throw new LinkError(`link ${reach} is down (${this.reason}), and ${fix}`, { link: reach });
  }

  /** The cuts, changed as little as can be so that they use no link from `reach` up. @returns {number[] | undefined} */
  #pick(reach) {
    const { routes, cuts } = this;
    if (!this.isBottom) {
      return [cuts, cuts.map(() => 0)].find((one) => routes.has(one) && (reach || !routes.route(one).legs[0].record));
    }
    const clipped = cuts.map((cut, link) => (link < reach ? cut : routes.size));
    const lowest = Array.from({ length: reach + 1 }, (_, below) => reach - below);
    const alone = lowest.map((tier) => cuts.map((_, link) => (link < tier ? 0 : routes.size)));
    return [cuts, clipped, ...alone].find((one) => routes.has(one) && routes.route(one).links <= reach);
  }

  async #attempt(route, inputs, deadline) {
    const live = { ...inputs };
    let mine = null;
    let hop = null;
    const here = async () => {
      const { record, name } = route.legs[this.routes.mine];
      const start = performance.now();
      const { made, queue_s = 0, compute_s = 0 } = record ? await this.runner.run(record, live) : {};
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
    const above = hop?.tiers ?? [];
    const tiers = this.isBottom ? [mine, ...above] : [...above, mine];
    return { outputs, tiers, hop };
  }

  /** What must be left of a request's time to run it here. */
  #reserve(deadline) {
    if (!this.#pick(0)) return 0;
    const half = deadline.left_s / 2;
    return this.local_s === null ? half : Math.min(half, 2 * this.local_s);
  }

  /** A link that fails is down; time that is up says less, so the tiers are asked at once. */
  #failed(error) {
    if (error instanceof DeadlineError) this.#probe(0);
    if (!(error instanceof LinkError) || error.link >= this.reach) return;
    this.reach = error.link;
    this.reason = error.message;
    this.onReach(this.reach, this.reason);
    this.#probe(PROBE_PAUSE_MS);
  }

  #probe(pause_ms) {
    this.prober ??= setTimeout(async () => {
      const tiers = await this.remote.probe();
      if (this.isClosed) return;
      const failed = tiers.findIndex((tier) => !tier.ready);
      const before = this.reach;
      this.reach = Math.min(failed < 0 ? tiers.length : failed, this.links);
      if (this.reach < before) this.reason = tiers[failed]?.error ?? "it is not ready";
      if (this.reach !== before) this.onReach(this.reach, this.reach < before ? this.reason : "it answers again");
      this.prober = null;
      if (this.reach < this.links) this.#probe(PROBE_PAUSE_MS);
      else this.reason = "";
    }, pause_ms);
    this.prober.unref?.(); // Node need not wait for it
  }
}
