/** The next tier: ours, or any other server of the Open Inference Protocol. */
import { misfit } from "./routes.js";
import {
  DeadlineError, LinkError, RefusedError, ServingError, TYPES, decode, encode, join, toText,
} from "./wire.js";

export const LATE = 408; // the link is not to blame
const JSON_LENGTH = "Inference-Header-Content-Length";
const PROBE_S = 1;
const PREPARE_S = 60;
const LONGEST_ANSWER = 2 ** 31;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export class Deadline {
  constructor(seconds) {
    this.end = performance.now() + seconds * 1e3;
  }

  get left_s() {
    return (this.end - performance.now()) / 1e3;
  }
}

/**
 * Where a request's time went on a tier, in seconds.
 * @typedef {{tier: string, queue_s: number, compute_s: number, total_s: number, receive_s?: number}} Trace
 */
export class Remote {
  /** @param {import("./routes.js").Routes} routes @param {number} tier @param {string} url */
  constructor(routes, tier, url, { token, fetch = globalThis.fetch } = {}) {
    Object.assign(this, { routes, tier, token, name: routes.tiers[tier], url: url.replace(/\/+$/, "") });
    this.fetch = (...given) => fetch(...given);
    this.path = `/v2/models/${encodeURIComponent(this.name)}`;
    this.isOurs = true;
    /** @type {Promise<void> | null} */
    this.met = null;
  }

  /**
   * Has the rest of a request done.
   * @param {import("./routes.js").Route} route @param {import("./wire.js").Tensors} values
   * @param {import("./routes.js").Port[]} wanted what to answer with
   * @param {Deadline} deadline
   */
  async infer(route, values, wanted, deadline) {
    await this.#meet(deadline);
    const body = this.body(route, values, wanted, deadline.left_s);
    const start = performance.now();
    const { answer, nbytes } = await this.#exchange(`${this.path}/infer`, deadline, async (response) => {
      const length = Number(response.headers.get("Content-Length") ?? 0);
      if (length > LONGEST_ANSWER) throw new RefusedError(`the answer of \`${this.url}\` is too large`);
      const whole = await response.arrayBuffer();
      const json = response.headers.get(JSON_LENGTH);
      return { answer: decode(whole, json === null ? whole.byteLength : Number(json)), nbytes: whole.byteLength };
    }, body.bytes, { [JSON_LENGTH]: String(body.jsonLength), "Content-Type": "application/octet-stream" });
    const total_s = (performance.now() - start) / 1e3;
    const results = {};
    for (const port of wanted) {
      const tensor = answer.tensors[port.name];
      const wrong = tensor ? misfit(port, tensor) : `it lacks \`${port.name}\``;
      if (wrong && (tensor || port.kind !== "optional")) {
        throw new RefusedError(`\`${this.url}\` answers wrongly: ${wrong}`);
      }
      if (tensor) results[port.name] = tensor;
    }
    const tiers = readTrace(answer.parameters.dnnsplit_trace);
    return { results, total_s, sent_nbytes: body.bytes.byteLength, received_nbytes: nbytes, tiers };
  }

  /** The body of a request, as the Python edge writes it: above, 0.9 of the time left. */
  body(route, values, wanted, left_s) {
    if (left_s <= 0) throw new DeadlineError("no time is left for sending on", { status: LATE });
    const present = route.legs[this.tier].arrives.map(({ name }) => name).filter((name) => values[name]);
    const { entries, buffers } = encode(present.map((name) => [name, values[name]]));
    const outputs = wanted.map(({ name }) => ({ name, parameters: { binary_data: true } }));
    const parameters = {
      dnnsplit_manifest: this.routes.manifest.identity,
      dnnsplit_cuts: route.cuts.join(),
      dnnsplit_trace: true,
      timeout: roundedUs(0.9 * left_s),
    };
    if (!this.isOurs && route.cuts.join() !== this.routes.cuts.join()) {
      throw new RefusedError(`\`${this.url}\` knows no other cuts than the plan's`, { status: 404 });
    }
    const text = toText({ inputs: entries, outputs, ...(this.isOurs ? { parameters } : {}) });
    return { bytes: join([text, ...buffers]), jsonLength: text.length };
  }

  /** The tiers from here up, and whether each is ready; never fails. */
  async probe() {
    this.met = null; // what comes back may be something else
    try {
      const deadline = new Deadline(PROBE_S);
      await this.#meet(deadline);
      if (!this.isOurs) return [{ tier: this.name, ready: await this.#exchange(`${this.path}/ready`, deadline, () => true) }];
      return (await this.#json("/v2/chain", deadline)).tiers;
    } catch (error) {
      return [{ tier: this.name, ready: false, error: error.message }];
    }
  }

  /** Has the tiers from here up open slices. @param {import("./routes.js").Route} route */
  async prepare(route) {
    await this.#meet(new Deadline(PREPARE_S));
    if (!this.isOurs) return;
    const asked = { dnnsplit_manifest: this.routes.manifest.identity, dnnsplit_cuts: route.cuts.join() };
    await this.#json("/v2/cuts", new Deadline(PREPARE_S), toText(asked));
  }

  /** Sends bytes that mean nothing; the seconds that took. @param {number} nbytes @param {Deadline} deadline */
  async measure(nbytes, deadline) {
    const start = performance.now();
    await this.#json("/v2/link", deadline, new Uint8Array(nbytes));
    return (performance.now() - start) / 1e3;
  }

  /** Asks what is served there. */
  #meet(deadline) {
    this.met ??= this.#greet(deadline).catch((error) => {
      this.met = null;
      throw error;
    });
    return this.met;
  }

  async #greet(deadline) {
    const data = await this.#json(this.path, deadline).catch((error) => {
      if (!(error instanceof RefusedError) || error.status === 401) throw error;
      throw new LinkError(`\`${this.url}\` does not serve tier \`${this.name}\`: ${error.message}`);
    });
    // Ways of writing values that only some servers know would be agreed on here. None are
    // asked for: what travels is raw, which every server reads.
    const theirs = data?.parameters?.dnnsplit_manifest;
    this.isOurs = theirs !== undefined;
    if (this.isOurs && theirs !== this.routes.manifest.identity) {
      throw new LinkError(`tier \`${this.name}\` at \`${this.url}\` has slices of another manifest: export again`);
    }
    if (this.isOurs) return;
    const { arrives } = this.routes.route(this.routes.cuts).legs[this.tier];
    const ours = arrives.map(({ name, dtype }) => `${name} ${TYPES[dtype][0]}`);
    const read = (data?.inputs ?? []).map(({ name, datatype }) => `${name} ${datatype}`);
    if (read.sort().join("\0") !== ours.sort().join("\0")) {
      throw new LinkError(`model \`${this.name}\` at \`${this.url}\` does not read what the slice in this page makes`);
    }
    const { extensions } = await this.#json("/v2", deadline);
    if (!extensions?.includes("binary_tensor_data")) throw new LinkError(`\`${this.url}\` reads no binary tensors`);
  }

  #json(path, deadline, body) {
    return this.#exchange(path, deadline, (response) => response.json(), body);
  }

  /**
   * One request, in time or not at all.
   * @template T
   * @param {string} path @param {Deadline} deadline @param {(response: Response) => T | Promise<T>} read
   * @returns {Promise<T>}
   */
  async #exchange(path, deadline, read, body, headers = {}) {
    const abort = new AbortController();
    const left_ms = Math.min(Math.max(0, deadline.left_s * 1e3), LONGEST_TIMER_MS);
    const timer = setTimeout(() => abort.abort(), left_ms);
    try {
      const response = await this.fetch(this.url + path, {
        method: body ? "POST" : "GET",
        body,
        headers: this.token ? { ...headers, Authorization: `Bearer ${this.token}` } : headers,
        signal: abort.signal,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
      if (response.status !== 200) throw await this.#refusal(response);
      return await read(response);
    } catch (error) {
      if (error instanceof ServingError) throw error;
      if (abort.signal.aborted) throw new DeadlineError(`\`${this.url}\` did not answer in time`);
      if (error instanceof SyntaxError) throw new RefusedError(`\`${this.url}\` answers with what is no JSON`);
      throw new LinkError(`cannot reach \`${this.url}\`: ${error?.cause?.message ?? error.message}`);
    } finally {
      clearTimeout(timer);
    }
  }

  async #refusal(response) {
    const { error, link } = await response.json().catch(() => ({})) ?? {};
    const message = String(error ?? `HTTP status ${response.status}`).replace(/\s+/g, " ").slice(0, 500);
    if (Number.isInteger(link)) return new LinkError(message, { link });
    if (response.status === 504) return new DeadlineError(message);
    return new RefusedError(`tier \`${this.name}\` refuses: ${message}`, { status: response.status });
  }
}

/** Microseconds, rounded down to two digits, so that one request's text is the next one's too. @param {number} seconds */
export function roundedUs(seconds) {
  const microseconds = Math.max(1, Math.trunc(seconds * 1e6));
  const unit = 10 ** Math.max(0, String(microseconds).length - 2);
  return Math.floor(microseconds / unit) * unit;
}

/** The traces of an answer's parameter; none if it is not in order. @returns {Trace[]} */
function readTrace(text) {
  const times = ["queue", "compute", "total", "receive"];
  try {
    return JSON.parse(text).map((entry) => ({
      tier: entry.tier,
      ...Object.fromEntries(times.map((time) => [`${time}_s`, entry[`${time}_ms`] / 1e3])),
    }));
  } catch {
    return [];
  }
}
