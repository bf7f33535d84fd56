/**
 * What a request passes on its way up, for any cuts that there are slices for; as in Python.
 *
 * @typedef {{name: string, dtype: string, shape: (number | string | null)[] | null, kind: string}} Port
 * @typedef {{tier: string, file: string | null, start: number, stop: number, inputs: Port[], outputs: Port[],
 *   data: {file: string}[]}} SliceRecord
 * @typedef {{name: string, record: SliceRecord | null, arrives: Port[], answers: Port[], makes: Port[],
 *   goesOn: boolean}} Leg `answers` are the model's outputs made there or above
 * @typedef {{cuts: number[], legs: Leg[], links: number}} Route
 */
import { ManifestError } from "./wire.js";

/** The routes of a manifest. */
export class Routes {
  /** @param {any} manifest @throws {ManifestError} It is none of a site. */
  constructor(manifest) {
    if (manifest?.schema_version !== 1 || !Array.isArray(manifest.slices) || !manifest.identity || !manifest.files) {
      throw new ManifestError("this is no manifest that `export web` of this release wrote");
    }
    this.manifest = manifest;
    this.tiers = manifest.slices.map((record) => record.tier);
    this.mine = this.tiers.indexOf(manifest.tier);
    this.size = manifest.slices.at(-1).stop;
    /** The cuts of the plan. */
    this.cuts = manifest.slices.slice(0, -1).map((record) => record.stop);
    this.inputs = manifest.model.inputs;
    this.outputs = manifest.model.outputs;
    const records = [...manifest.candidates, ...manifest.slices];
    this.records = new Map(records.map((record) => [`${record.tier} ${record.start} ${record.stop}`, record]));
    const ports = [...records.flatMap((record) => [...record.inputs, ...record.outputs]), ...this.inputs, ...this.outputs];
    this.ports = new Map(ports.map((port) => [port.name, port]));
    this.known = new Map();
    this.route(this.cuts);
  }

  /** @param {number[]} cuts @returns {Route} @throws {ManifestError} There is no slice for a range. */
  route(cuts) {
    const key = cuts.join();
    if (!this.known.has(key)) this.known.set(key, this.#make([...cuts]));
    return this.known.get(key);
  }

  /** Whether there are slices for some cuts. @param {number[]} cuts */
  has(cuts) {
    try {
      return this.route(cuts) !== null;
    } catch {
      return false;
    }
  }

  #make(cuts) {
    const bounds = [0, ...cuts, this.size];
    const ascend = bounds.every((at, i) => Number.isInteger(at) && (i === 0 || bounds[i - 1] <= at));
    if (cuts.length !== this.tiers.length - 1 || !ascend) {
      throw new ManifestError(`[${cuts}] are no cuts of this model over ${this.tiers.length} tiers`, { status: 400 });
    }
    const records = this.tiers.map((tier, at) => this.#record(tier, bounds[at], bounds[at + 1]));
    const legs = [];
    const answered = new Set();
    let needed = [];
    for (let tier = this.tiers.length - 1; tier >= 0; tier -= 1) {
      const record = records[tier];
      if (record) {
        const made = record.outputs.map(({ name }) => name);
        const reads = record.inputs.map(({ name }) => name);
        needed = [...new Set([...reads, ...needed.filter((name) => !made.includes(name))])];
        made.forEach((name) => answered.add(name));
      }
      legs.unshift({
        name: this.tiers[tier],
        record,
        arrives: needed.map((name) => this.ports.get(name)),
        answers: this.outputs.filter(({ name }) => answered.has(name)),
        makes: record ? record.outputs : [],
        goesOn: records.slice(tier + 1).some(Boolean),
      });
    }
    return { cuts, legs, links: legs.filter((leg) => leg.goesOn).length };
  }

  #record(tier, start, stop) {
    if (start === stop) return null;
    const record = this.records.get(`${tier} ${start} ${stop}`);
    if (!record) {
      const what = `nodes ${start} to ${stop}: split --all-candidates`;
      throw new ManifestError(`tier \`${tier}\` has no slice of ${what}`, { status: 404 });
    }
    return record.file === null ? null : record;
  }
}

/** Why a tensor is not one that a port takes; null if it is. @param {Port} port */
export function misfit(port, { dtype, shape }) {
  if (dtype !== port.dtype) return `\`${port.name}\` is ${dtype}; it must be ${port.dtype}`;
  const fits = !port.shape || (port.shape.length === shape.length
    && port.shape.every((size, at) => typeof size !== "number" || size === shape[at]));
  const wanted = (port.shape ?? []).map((size) => size ?? "?").join(", ");
  return fits ? null : `\`${port.name}\` has the shape [${shape.join(", ")}]; it must be [${wanted}]`;
}
