/** Slices in onnxruntime-web: files that are held against their digests, and sessions that are kept open. */
import { DeviceError, InputError, ManifestError, TYPES } from "./wire.js";

const CACHE = "dnnsplit-onnx";

/** Runs slices, one at a time. */
export class Runner {
  /**
   * @param {any} ort onnxruntime-web
   * @param {string} base URL of the manifest
   * @param {Record<string, {nbytes: number, sha256: string, crc32: string}>} files
   * @param {{backend?: string, most?: number, fetch?: typeof fetch}} [options] `most` sessions are kept
   */
  constructor(ort, base, files, { backend = "wasm", most = 4, fetch = globalThis.fetch } = {}) {
    Object.assign(this, { ort, base, files, backend, most });
    this.fetch = (...given) => fetch(...given);
    /** What went otherwise than it might have. @type {Set<string>} */
    this.notes = new Set();
    /** @type {Map<string, any>} */
    this.sessions = new Map();
    /** @type {Map<string, Promise<Uint8Array>>} */
    this.weights = new Map();
    this.last = Promise.resolve();
  }

  /**
   * Opens a slice ahead of the first request that needs it.
   * @param {import("./routes.js").SliceRecord} record
   * @throws {ManifestError} A file is not the one that was written.
   * @throws {DeviceError} onnxruntime-web cannot open it.
   */
  async open(record) {
    const parts = await this.#load(record);
    await this.#alone(() => this.#session(record, parts));
  }

  /**
   * Runs a slice on values by name.
   * @param {import("./routes.js").SliceRecord} record
   * @param {import("./wire.js").Tensors} values others than it reads are left alone
   * @returns {Promise<{made: import("./wire.js").Tensors, queue_s: number, compute_s: number}>}
   * @throws {InputError} A value is one that the code it is written in cannot hold.
   */
  async run(record, values) {
    // Files are fetched while others compute.
    const parts = await this.#load(record);
    const asked = performance.now();
    return this.#alone(async () => {
      const session = await this.#session(record, parts);
      const start = performance.now();
      const made = {};
      try {
        const feeds = {};
        for (const { name } of record.inputs) {
          const { dtype, shape, data } = values[name];
          feeds[name] = new this.ort.Tensor(TYPES[dtype][1], data, shape);
        }
        const results = await session.run(feeds);
        for (const { name, dtype } of record.outputs) {
          const tensor = results[name];
          const data = tensor.location === "cpu" ? tensor.data : await tensor.getData(true);
          made[name] = { dtype, shape: [...tensor.dims], data };
        }
      } catch (error) {
        throw new DeviceError(`slice \`${record.file}\` fails here: ${said(error)}`);
      }
      const seconds = (performance.now() - start) / 1e3;
      checkCodes(record.outputs, made);
      return { made, queue_s: (start - asked) / 1e3, compute_s: seconds };
    });
  }

  /** Gives up all sessions. */
  close() {
    return this.#alone(async () => {
      this.most = 0;
      await this.#closeOldest();
      this.weights.clear();
    });
  }

  /** A file of the site, held against its digest. @param {string} file @returns {Promise<Uint8Array>} */
  async read(file) {
    const known = this.files[file];
    if (!known) throw new ManifestError(`\`${file}\` is not in the manifest`);
    // A browser lets few pages look into a cache of its own: by https, or from this machine.
    const cache = await globalThis.caches?.open(CACHE).catch(() => null);
    const url = new URL(file, this.base);
    const key = `${url}?sha256=${known.sha256}`;
    const kept = await cache?.match(key);
    if (kept) {
      const bytes = new Uint8Array(await kept.arrayBuffer());
      if (await isWhole(bytes, known)) return bytes;
      await cache.delete(key);
    }
    const response = await this.fetch(url).catch((error) => {
      throw new DeviceError(`cannot fetch \`${file}\`: ${said(error)}`);
    });
    if (!response.ok) throw new DeviceError(`cannot fetch \`${file}\`: status ${response.status}`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    if (!(await isWhole(bytes, known))) {
      throw new ManifestError(`\`${file}\` is not the file that was exported: its checksum differs`);
    }
    await cache?.put(key, new Response(bytes)).catch((error) => {
      this.notes.add(`slices are fetched again each time: ${said(error)}`);
    });
    return bytes;
  }

  /** What a session is made of; null if there is one. */
  async #load(record) {
    if (this.sessions.has(record.file)) return null;
    const folder = record.file.slice(0, record.file.lastIndexOf("/") + 1);
    const externalData = [];
    for (const { file } of record.data) {
      // Slices of one tier may share a file of weights.
      if (!this.weights.has(file)) this.weights.set(file, this.read(file));
      try {
        externalData.push({ path: file.slice(folder.length), data: await this.weights.get(file) });
      } catch (error) {
        this.weights.delete(file);
        throw error;
      }
    }
    return { model: await this.read(record.file), externalData };
  }

  async #session(record, parts) {
    const kept = this.sessions.get(record.file);
    this.sessions.delete(record.file); // the one unused for longest comes first
    const session = kept ?? await this.#create(record, parts ?? await this.#load(record));
    this.sessions.set(record.file, session);
    await this.#closeOldest();
    return session;
  }

  async #create(record, parts) {
    const { model, externalData } = parts;
    const executionProviders = this.backend === "webgpu" ? ["webgpu", "wasm"] : ["wasm"];
    let session;
    try {
      session = await this.ort.InferenceSession.create(model, { executionProviders, externalData });
    } catch (error) {
      if (this.backend === "webgpu") { // what it has no driver for, WASM may run all the same
        this.backend = "wasm";
        this.notes.add(`WebGPU failed, so all runs in WASM: ${said(error)}`);
        return this.#create(record, parts);
      }
      throw new DeviceError(`slice \`${record.file}\` cannot be opened here: ${said(error)}`);
    }
    for (const [ports, names] of [[record.inputs, session.inputNames], [record.outputs, session.outputNames]]) {
      if (ports.map(({ name }) => name).sort().join("\0") !== [...names].sort().join("\0")) {
        throw new ManifestError(`\`${record.file}\` does not read and make the values that the manifest lists`);
      }
    }
    return session;
  }

  async #closeOldest() {
    for (const [file, session] of [...this.sessions].slice(0, Math.max(0, this.sessions.size - this.most))) {
      this.sessions.delete(file);
      await session.release();
    }
  }

  /** The runtime does one thing at a time. @template T @param {() => Promise<T>} what @returns {Promise<T>} */
  #alone(what) {
    const result = this.last.then(what);
    this.last = result.then(() => {}, () => {});
    return result;
  }
}

/** Refuses what a code cannot hold, as the Python edge does. @param {any[]} ports @param {import("./wire.js").Tensors} made */
function checkCodes(ports, made) {
  for (const { name, dtype, code, stands_for: value } of ports.filter((port) => port.code)) {
    // Float16 stands as its bits: all ones in the exponent are infinity and NaN.
    const isFinite = { float: Number.isFinite, double: Number.isFinite, float16: (bits) => (bits & 0x7c00) !== 0x7c00 }[dtype];
    if (isFinite && !made[name].data.every((element) => isFinite(element))) {
      const beyond = code === "fp16" ? "beyond 65504" : "too wide a range";
      throw new InputError(`value \`${value}\` holds what ${code} cannot: NaN, infinity, or ${beyond}`, { status: 422 });
    }
  }
}

/** What an error says, in one line. @param {unknown} error */
export const said = (error) => String(error?.message ?? error).replace(/\s+/g, " ").slice(0, 500);

/** Whether bytes are those that were exported: by SHA-256, or CRC-32 where a page may not use that. */
async function isWhole(bytes, { nbytes, sha256, crc32: crc }) {
  if (bytes.length !== nbytes) return false;
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) return crc32(bytes) === crc;
  return hex(new Uint8Array(await subtle.digest("SHA-256", bytes))) === sha256;
}

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** CRC-32 as zlib has it, in hexadecimal. @param {Uint8Array} bytes */
export function crc32(bytes) {
  const table = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
    return n;
  });
  let crc = ~0;
  for (const byte of bytes) crc = (crc >>> 8) ^ table[(crc ^ byte) & 255];
  return (~crc >>> 0).toString(16).padStart(8, "0");
}
