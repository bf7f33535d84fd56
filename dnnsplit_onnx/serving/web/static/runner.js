/** Slices in onnxruntime-web: files held against their digests, sessions kept open. @import {Slice, Tensors} from "./types.js" */
import { DeviceError, ManifestError, TYPES } from "./wire.js";

const CACHE = "dnnsplit-onnx";

/** Runs slices, one at a time. */
export class Runner {
  /** @param {string} base URL of the manifest @param {import("./types.js").Options} options */
  constructor(base, files, { ort, backend = "wasm", spare, most = 4, fetch = globalThis.fetch } = {}) {
    Object.assign(this, { ort, base, files, backend, spare, most });
    this.fetch = (...given) => fetch(...given);
    /** What went otherwise than it might have. */
    this.notes = new Set();
    /** @type {Map<string, any>} */
    this.sessions = new Map();
    /** Files of weights, which slices share. @type {Map<string, Promise<Uint8Array>>} */
    this.weights = new Map();
    this.last = Promise.resolve();
  }

  /**
   * Runs a slice on values by name.
   * @param {Slice} slice
   * @param {Tensors} values others than it reads are left alone
   * @returns {Promise<{made: Tensors, queue_s: number, compute_s: number}>}
   * @throws {ManifestError | DeviceError | InputError}
   */
  async run(slice, values) {
    // Files are fetched while others compute.
    const parts = this.sessions.has(slice.file) ? null : await this.#load(slice);
    const asked = performance.now();
    return this.#alone(async () => {
      const session = await this.#session(slice, parts);
      const start = performance.now();
      const made = {};
      try {
        const feeds = {};
        for (const { name } of slice.inputs) {
          const { dtype, shape, data } = values[name];
          feeds[name] = new this.ort.Tensor(TYPES[dtype][1], data, shape);
        }
        const results = await session.run(feeds);
        for (const { name, dtype } of slice.outputs) {
          made[name] = { dtype, shape: [...results[name].dims], data: await results[name].getData(true) };
        }
      } catch (error) {
        throw new DeviceError(`slice \`${slice.file}\` fails here: ${said(error)}`);
      }
      const compute_s = (performance.now() - start) / 1e3;
      this.codes?.checkCodes(slice.outputs.filter((port) => port.code), made);
      return { made, queue_s: (start - asked) / 1e3, compute_s };
    });
  }

  /** Gives up all sessions. */
  close() {
    this.most = 0;
    this.weights.clear();
    return this.#alone(() => this.#closeOldest());
  }

  /** A file of the site, held against its digest. @returns {Promise<Uint8Array>} */
  async #read(file) {
    const known = this.files[file];
    // A browser lets few pages look into a cache of its own: by https, or from this machine.
    const cache = await globalThis.caches?.open(CACHE).catch(() => null);
    const url = new URL(file, this.base);
    const key = `${url}?sha256=${known.sha256}`;
    const kept = await cache?.match(key);
    const before = kept && (await content(kept, known));
    if (before) return before;
    const response = await this.fetch(url).catch((error) => ({ status: said(error) }));
    if (!response.ok) throw new DeviceError(`cannot fetch \`${file}\`: ${response.status}`);
    const bytes = await content(response, known);
    if (!bytes) throw new ManifestError(`\`${file}\` is not the file that was exported: its checksum differs`);
    await cache?.put(key, new Response(bytes)).catch((error) => {
      this.notes.add(`slices are fetched again each time: ${said(error)}`);
    });
    return bytes;
  }

  /** What a session is made of. */
  async #load({ file, data }) {
    const folder = file.slice(0, file.lastIndexOf("/") + 1);
    const externalData = await Promise.all(data.map(async (name) => {
      if (!this.weights.has(name)) {
        const reading = this.#read(name);
        this.weights.set(name, reading);
        reading.catch(() => this.weights.delete(name));
      }
      return { path: name.slice(folder.length), data: await this.weights.get(name) };
    }));
    return [await this.#read(file), { externalData }];
  }

  async #session(slice, parts) {
    const { file } = slice;
    const session = this.sessions.get(file) ?? await this.#create(file, parts ?? await this.#load(slice));
    this.sessions.delete(file); // the one unused for longest comes first
    this.sessions.set(file, session);
    await this.#closeOldest();
    return session;
  }

  async #create(file, [model, options]) {
    try {
      return await this.ort.InferenceSession.create(model, { executionProviders: [this.backend], ...options });
    } catch (error) {
      if (this.backend === "wasm" || !this.spare) throw new DeviceError(`slice \`${file}\` cannot be opened here: ${said(error)}`);
      // A runtime whose WebGPU has failed hangs when it is asked for anything more.
      this.sessions.clear();
      Object.assign(this, { ort: await this.spare(), backend: "wasm" });
      this.notes.add(`WebGPU failed, so all runs in WASM: ${said(error)}`);
      return this.#create(file, [model, options]);
    }
  }

  async #closeOldest() {
    for (const [file, session] of [...this.sessions].slice(0, Math.max(0, this.sessions.size - this.most))) {
      this.sessions.delete(file);
      await session.release();
    }
  }

  /** The runtime does one thing at a time. */
  #alone(what) {
    const result = this.last.then(what);
    this.last = result.catch(() => {});
    return result;
  }
}

/** What an error says, in one line. */
export const said = (error) => String(error?.message ?? error).replace(/\s+/g, " ").slice(0, 500);

/** Bytes if they are those that were exported: by SHA-256, or CRC-32 where a page may not use that. */
async function content(response, known) {
  const bytes = new Uint8Array(await response.arrayBuffer());
  const subtle = globalThis.crypto?.subtle;
  const isWhole = subtle
    ? hex(new Uint8Array(await subtle.digest("SHA-256", bytes))) === known.sha256
    : (await import("./crc32.js")).crc32(bytes) === known.crc32;
  return isWhole ? bytes : null;
}

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
