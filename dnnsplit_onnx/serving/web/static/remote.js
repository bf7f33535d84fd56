/** The next tier: ours, or another server of the Open Inference Protocol. */
import { misfit } from "./routes.js";
import {
  BusyError, DeadlineError, LinkError, RefusedError, ServingError, TYPES, decode, encode, join, mayPass, toText,
} from "./wire.js";

const JSON_LENGTH = "Inference-Header-Content-Length";
const PROBE_S = 1;
const LONGEST_RETRY_S = 60;
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

/** @typedef {{tier: string, queue_s: number, compute_s: number, total_s: number, receive_s?: number}} Trace */
export class Remote {
  /** @param {import("./routes.js").Routes} routes @param {number} tier @param {string} url */
  constructor(routes, tier, url, { token, fetch = globalThis.fetch } = {}) {
    Object.assign(this, { routes, tier, token, name: routes.tiers[tier], url: url.replace(/\/+$/, "") });
    this.fetch = (...given) => fetch(...given);
    this.path = `/v2/models/${encodeURIComponent(this.name)}`;
    this.link = Math.max(0, tier - 1); // the one that leads there
    /** Called with what tells of a link. @type {(error: ServingError) => void} */
    this.onFailure = () => {};
    this.isOurs = true;
    this.met = null;
  }

  /** Has the rest of a request done. @param {import("./routes.js").Route} route @param {Deadline} deadline */
  async infer(route, values, wanted, deadline) {
    if (deadline.left_s <= 0) throw new DeadlineError(`no time is left for tier \`${this.name}\``, { link: this.link });
    try {
      return await this.#infer(route, values, wanted, deadline);
    } catch (error) {
      if (mayPass(error)) {
        error.link ??= this.link;
        this.onFailure(error);
      }
      throw error;
    }
  }

  async #infer(route, values, wanted, deadline) {
    await this.#meet(deadline);
    const body = this.body(route, values, wanted, deadline.left_s);
    const start = performance.now();
    const { answer, nbytes } = await this.#exchange(`${this.path}/infer`, deadline, async (response) => {
      if (Number(response.headers.get("Content-Length")) > LONGEST_ANSWER) {
        throw new RefusedError(`the answer of \`${this.url}\` is too large`);
      }
      const whole = await response.arrayBuffer();
      const json = response.headers.get(JSON_LENGTH) ?? whole.byteLength;
      return { answer: decode(whole, Number(json)), nbytes: whole.byteLength };
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

  /** A request's body, as the Python edge writes it: above, 0.9 of the time left. */
  body(route, values, wanted, left_s) {
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

  /** The tiers from here up; never fails. */
  async probe() {
    this.met = null; // what comes back may be something else
    try {
      const deadline = new Deadline(PROBE_S);
      await this.#meet(deadline);
      if (this.isOurs) return (await this.json("/v2/chain", deadline)).tiers;
      return [{ tier: this.name, ready: await this.#exchange(`${this.path}/ready`, deadline, () => true) }];
    } catch (error) {
      return [{ tier: this.name, ready: false, error: error.message }];
    }
  }

  /** Has the tiers from here up open slices. @param {import("./routes.js").Route} route */
  async prepare(route) {
    const deadline = new Deadline(PREPARE_S);
    await this.#meet(deadline);
    const asked = { dnnsplit_manifest: this.routes.manifest.identity, dnnsplit_cuts: route.cuts.join() };
    if (this.isOurs) await this.json("/v2/cuts", deadline, toText(asked));
  }

  /** Asks what is served there. */
  #meet(deadline) {
    return this.met ??= this.#greet(deadline).catch((error) => {
      this.met = null;
      throw error;
    });
  }

  async #greet(deadline) {
    const data = await this.json(this.path, deadline).catch((error) => {
      if (!(error.status >= 400) || error.status === 401) throw error;
      throw new LinkError(`\`${this.url}\` does not serve tier \`${this.name}\`: ${error.message}`);
    });
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
      throw new LinkError(`model \`${this.name}\` at \`${this.url}\` does not read what is made here`);
    }
    const { extensions } = await this.json("/v2", deadline);
    if (!extensions?.includes("binary_tensor_data")) throw new LinkError(`\`${this.url}\` reads no binary tensors`);
  }

  /** What is answered in JSON. @param {string} path @param {Deadline} deadline @param {Uint8Array} [body] */
  json(path, deadline, body) {
    return this.#exchange(path, deadline, (response) => response.json(), body);
  }

  /** One request, in time or not at all. @param {(response: Response) => any} read */
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
    const { status, headers } = response;
    const told = await response.json().catch(() => null);
    const message = String(told?.error ?? `HTTP status ${status}`).replace(/\s+/g, " ").slice(0, 500);
    let link = Number.isInteger(told?.link) ? told.link : null;
    if (link !== null && (link < this.link || link >= this.routes.tiers.length - 1)) link = this.link;
    const refuses = `tier \`${this.name}\` refuses: ${message}`;
    if (status === 504) return new DeadlineError(message, { link });
    if ((status === 429 || status === 503) && (told?.busy === true || link === null)) {
      const wait = headers.get("Retry-After") ?? "";
      const retry_s = /^\d{1,8}$/.test(wait) ? Math.min(Number(wait), LONGEST_RETRY_S) : 1;
      return new BusyError(refuses, { link, status, retry_s });
    }
    if (status === 503) return new LinkError(message, { link });
    return new RefusedError(refuses, { status, link });
  }
}

/** Microseconds, rounded down to two digits as in Python. */
export function roundedUs(seconds) {
  const microseconds = Math.max(1, Math.trunc(seconds * 1e6));
  const unit = 10 ** Math.max(0, String(microseconds).length - 2);
  return Math.floor(microseconds / unit) * unit;
}

/** The traces of an answer's parameter; none if it is not in order. @returns {Trace[]} */
function readTrace(text) {
  const times = ["queue", "compute", "total", "receive"];
  try {
    return JSON.parse(text).map((entry) => Object.fromEntries(
      [["tier", entry.tier], ...times.map((time) => [`${time}_s`, entry[`${time}_ms`] / 1e3])]));
  } catch {
    return [];
  }
}
