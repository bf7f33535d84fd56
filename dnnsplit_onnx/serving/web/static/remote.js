/** The next tier: a `serve` of the same slices. @import {Route, Tensors, Trace} from "./types.js" */
import { BusyError, DeadlineError, LinkError, RefusedError, ServingError, decode, encode } from "./wire.js";

const JSON_LENGTH = "Inference-Header-Content-Length";
const PROBE_S = 1;
const LONGEST_RETRY_S = 60;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export class Deadline {
  constructor(seconds) {
    this.end = performance.now() + seconds * 1e3;
  }

  get left_s() {
    return (this.end - performance.now()) / 1e3;
  }
}

/** Whether the same request may be answered another way. */
export const mayPass = (error) => [LinkError, DeadlineError, BusyError].some((kind) => error instanceof kind);

/** An error's `link` is how many of the other tiers can still be reached. */
export class Remote {
  constructor(routes, url, { token, fetch = globalThis.fetch } = {}) {
    const tier = routes.isBottom ? 1 : 0;
    Object.assign(this, { routes, tier, token, name: routes.tiers[tier], url: url.replace(/\/+$/, "") });
    this.fetch = (...given) => fetch(...given);
    this.path = `/v2/models/${encodeURIComponent(this.name)}`;
    /** Called with what tells of a link. */
    this.onFailure = () => {};
    this.met = null;
  }

  /** Has the part of a request done that is not this page's. @param {Route} route @param {Tensors} values */
  async infer(route, values, deadline, sequence) {
    if (deadline.left_s <= 0) throw new DeadlineError(`no time is left for tier \`${this.name}\``, { link: 0 });
    try {
      await this.#meet(deadline);
      const body = this.body(route, values, deadline.left_s, sequence);
      const start = performance.now();
      const { tensors, parameters, nbytes } = await this.#exchange(`${this.path}/infer`, deadline, async (response) => {
        const whole = await response.arrayBuffer();
        const json = response.headers.get(JSON_LENGTH) ?? whole.byteLength;
        return { ...decode(whole, Number(json), route.leg.answers), nbytes: whole.byteLength };
      }, body.bytes, { [JSON_LENGTH]: String(body.jsonLength), "Content-Type": "application/octet-stream" });
      const total_s = (performance.now() - start) / 1e3;
      const tiers = readTrace(parameters.dnnsplit_trace);
      return { results: tensors, total_s, sent_nbytes: body.bytes.byteLength, received_nbytes: nbytes, tiers };
    } catch (error) {
      if (mayPass(error)) {
        error.link ??= 0;
        this.onFailure(error);
      }
      throw error;
    }
  }

  /** A request's body, as the Python edge writes it: above, 0.9 of the time left. */
  body(route, values, left_s, sequence) {
    const { arrives, begins, answers } = route.leg;
    const present = [...arrives, ...begins].filter((name) => values[name]);
    const parameters = {
      dnnsplit_manifest: this.routes.manifest.identity,
      dnnsplit_cuts: route.cuts.join(),
      dnnsplit_trace: true,
      ...(this.routes.isBottom ? {} : { dnnsplit_until: this.routes.mine }),
      timeout: roundedUs(0.9 * left_s),
      ...sequence?.parameters,
    };
    const outputs = answers.map(({ name }) => ({ name, parameters: { binary_data: true } }));
    return encode(present.map((name) => [name, values[name]]), { outputs, parameters });
  }

  /** The other tiers, and whether they are ready; never fails. */
  async probe() {
    this.met = null; // what comes back may be something else
    const deadline = new Deadline(PROBE_S);
    try {
      await this.#meet(deadline);
      return (await this.json("/v2/chain", deadline)).tiers;
    } catch (error) {
      return [{ tier: this.name, ready: false, error: error.message }];
    }
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
    if (data?.parameters?.dnnsplit_manifest !== this.routes.manifest.identity) {
      throw new LinkError(`tier \`${this.name}\` at \`${this.url}\` has slices of another manifest: export again`);
    }
  }

  json(path, deadline, body) {
    return this.#exchange(path, deadline, (response) => response.json(), body);
  }

  /** One request, in time or not at all. */
  async #exchange(path, deadline, read, body, headers = {}) {
    const signal = AbortSignal.timeout(Math.min(Math.max(0, Math.ceil(deadline.left_s * 1e3)), LONGEST_TIMER_MS));
    try {
      const response = await this.fetch(this.url + path, {
        method: body ? "POST" : "GET",
        body,
        headers: this.token ? { ...headers, Authorization: `Bearer ${this.token}` } : headers,
        signal,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
      if (response.status !== 200) throw await this.#refusal(response);
      return await read(response);
    } catch (error) {
      if (error instanceof ServingError) throw error;
      if (signal.aborted) throw new DeadlineError(`\`${this.url}\` did not answer in time`);
      if (error instanceof SyntaxError) throw new RefusedError(`\`${this.url}\` answers with what is no JSON`);
      throw new LinkError(`cannot reach \`${this.url}\`: ${error?.cause?.message ?? error.message}`);
    }
  }

  async #refusal(response) {
    const { status, headers } = response;
    const told = await response.json().catch(() => null);
    const message = String(told?.error ?? `HTTP status ${status}`).replace(/\s+/g, " ").slice(0, 500);
    // Links are counted from tier 0 up: to a page at the top, the first is beyond one tier.
    const beyond = told?.link + (this.routes.isBottom ? 0 : 1);
    const link = Number.isInteger(told?.link) ? (beyond in this.routes.cuts ? beyond : 0) : null;
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
function roundedUs(seconds) {
  const microseconds = Math.max(1, Math.trunc(seconds * 1e6));
  const unit = 10 ** Math.max(0, String(microseconds).length - 2);
  return Math.floor(microseconds / unit) * unit;
}

/** An answer's traces; none if they are not in order. @returns {Trace[]} */
function readTrace(text) {
  const times = ["queue", "compute", "total", "receive"];
  try {
    return JSON.parse(text).map((entry) => Object.fromEntries(
      [["tier", entry.tier], ...times.map((time) => [`${time}_s`, entry[`${time}_ms`] / 1e3])]));
  } catch {
    return [];
  }
}
