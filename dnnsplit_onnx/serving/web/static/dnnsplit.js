/**
 * A page, or a Node process, as a tier of a model that was split:
 * `await (await open("manifest.json", { ort, url })).infer({ x: { dtype: "float", shape: [1], data } })`.
 *
 * Each request gets exactly one answer: the model's outputs, or an error. If a link or the runtime
 * here fails, it is run on the cuts that remain while there is time: all here, or all on others.
 *
 * @import {Answer, Options, Tensors} from "./types.js"
 */
import { Deadline, Remote, mayPass } from "./remote.js";
import { Routes } from "./routes.js";
import { Runner, said } from "./runner.js";
import { BusyError, DeadlineError, DeviceError, InputError, LinkError, ManifestError, misfit, withStrings } from "./wire.js";

export * from "./wire.js";

const PROBE_PAUSE_MS = 250;
const MOST_ATTEMPTS = 64;

/**
 * A client of a site.
 * @param {string | URL} manifest where its `manifest.json` is
 * @param {Options} options
 */
export async function open(manifest, options) {
  const base = new URL(manifest, globalThis.location?.href).href;
  const data = await (options.fetch ?? globalThis.fetch)(base, { cache: "no-cache" })
    .then((response) => (response.ok ? response.json() : Promise.reject(new Error(`status ${response.status}`))))
    .catch((error) => { throw new ManifestError(`cannot read \`${base}\`: ${said(error)}`); });
  const client = new Client(data, base, options);
  await client.prepare();
  return client;
}

export class Client {
  constructor(manifest, base, options) {
    const { url, deadline_s = 30 } = options;
    this.routes = new Routes(manifest);
    this.runner = new Runner(base, manifest.files, options);
    this.links = this.routes.cuts.length;
    this.remote = url && this.links ? new Remote(this.routes, url, options) : null;
    if (this.remote) this.remote.onFailure = (error) => this.#failed(error);
    this.deadline_s = deadline_s;
    this.reach = this.remote ? this.links : 0; // how many other tiers can be used, the nearest first
    this.reason = this.remote ? "" : "no URL of another tier was given";
    this.cuts = this.routes.cuts; // to be used while all is well
    /** Called when that changes. */
    this.onReach = () => {};
    this.local_s = null;
  }

  /** Loads what few models need, while the site can be reached. */
  async prepare() {
    const { manifest, states } = this.routes;
    const ports = Object.values(manifest.ports);
    if (states.length) this.states = await import("./states.js");
    if (ports.some(({ dtype }) => dtype === "string")) await withStrings();
    if (ports.some(({ code }) => code)) this.runner.codes = await import("./codes.js");
  }

  /**
   * Runs one request.
   * @param {Tensors} inputs and what states are to begin with, those that are not to be empty
   * @param {{deadline_s?: number, cuts?: number[], sequence?: import("./states.js").Conversation}} [how] these cuts and no others
   * @returns {Promise<Answer>}
   */
  async infer(inputs, { deadline_s = this.deadline_s, cuts, sequence } = {}) {
    const start = performance.now();
    this.#check(inputs);
    const deadline = new Deadline(deadline_s);
    const broken = new Set();
    let limit = this.links; // how far this request may still go
    for (let attempts = 1; ; attempts += 1) {
      const route = this.routes.route(cuts ?? this.#choose(broken, limit));
      try {
        const answer = await this.#attempt(route, inputs, deadline, sequence);
        return { ...answer, cuts: route.cuts, seconds: (performance.now() - start) / 1e3, attempts };
      } catch (error) {
        const isDevice = error instanceof DeviceError;
        const mayTry = isDevice ? !cuts && !broken.has(error.message) : mayPass(error) && error.link !== null;
        if (!mayTry || deadline.left_s <= 0 || attempts > MOST_ATTEMPTS) throw error;
        if (isDevice) {
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
    clearTimeout(this.prober);
    this.prober = 0; // for good
    return this.runner.close();
  }

  #check(values) {
    const { inputs, states } = this.routes;
    for (const port of inputs) {
      const tensor = values[port.name];
      if (!tensor && (port.kind === "optional" || states.some(({ input }) => input === port.name))) continue;
      const wrong = tensor ? misfit(port, tensor) : `\`${port.name}\` is missing`;
      if (wrong) throw new InputError(`input ${wrong}`);
    }
    const extra = Object.keys(values).find((name) => !inputs.some((port) => port.name === name));
    if (extra) throw new InputError(`unknown input \`${extra}\``);
  }

  /** The cuts to use, by no link from `limit` up; `broken` is what fails here. */
  #choose(broken, limit) {
    const { routes, cuts } = this;
    const reach = Math.min(this.reach, limit);
    if (broken.size) {
      const others = cuts.map(() => (routes.isBottom ? 0 : routes.size));
      if (reach && routes.has(others)) return others;
      throw new DeviceError([...broken].join("; "));
    }
    const picked = this.#pick(reach);
    if (picked) return picked;
    const fix = "there are no slices for the rest here: split --all-candidates";
    throw new LinkError(`link ${reach} is down (${this.reason}), and ${fix}`, { link: reach });
  }

  /** The cuts, changed as little as can be so that they use no link from `reach` up, if there are any. */
  #pick(reach) {
    const { cuts, routes } = this;
    const { isBottom, mine, size } = routes;
    // What tiers out of reach had to do falls to the last one in reach, or to this page at the top.
    const clipped = cuts.map((cut, link) => (isBottom ? (link < reach ? cut : size) : cuts[Math.min(link, reach - 1)] ?? 0));
    const tiers = Array.from({ length: reach + 1 }, (_, at) => (at || isBottom ? reach - at : mine));
    const ways = [cuts, clipped, ...tiers.map((tier) => cuts.map((_, link) => (link < tier ? 0 : size)))];
    return ways.find((one) => routes.has(one) && routes.route(one).links <= reach);
  }

  async #attempt(route, inputs, deadline, sequence) {
    const { isBottom, manifest, mine, outputs, tiers } = this.routes;
    const { slice } = route;
    const live = { ...inputs };
    const trace = { tier: tiers[mine], queue_s: 0, compute_s: 0, total_s: 0 };
    let hop = null;
    const here = async () => {
      if (!slice) return;
      const start = performance.now();
      const before = this.states?.statesBefore(slice, live, sequence?.kept, manifest.ports);
      const { made, ...times } = await this.runner.run(slice, { ...live, ...before });
      if (sequence) sequence.after = this.states?.statesAfter(slice.keeps, before, made, live) ?? {};
      Object.assign(live, made);
      Object.assign(trace, times, { total_s: (performance.now() - start) / 1e3 });
    };
    if (isBottom) await here();
    if (route.links) {
      const until = new Deadline(deadline.left_s - this.#reserve(deadline));
      const { results, ...rest } = await this.remote.infer(route, live, until, sequence);
      Object.assign(live, results);
      hop = rest;
    }
    if (!isBottom) await here();
    if (!hop) this.local_s = trace.total_s;
    const others = hop?.tiers ?? [];
    return {
      outputs: Object.fromEntries(outputs.map((name) => [name, live[name]])),
      tiers: isBottom ? [trace, ...others] : [...others, trace],
      hop,
    };
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
      if (this.prober === 0) return;
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
