/**
 * What a request passes, for any cuts that there are slices for: as `export web` has written it down.
 *
 * @typedef {import("./wire.js").Port} Port
 * @typedef {{input: string, output: string | null, kept_if_empty?: boolean, fixed?: Record<string, number>}} State
 * @typedef {{file: string, start: number, stop: number, inputs: Port[], outputs: Port[], keeps: State[],
 *   data: string[]}} Slice `keeps` goes from one request of a sequence to the next
 * @typedef {{arrives: string[], begins: string[], answers: Port[]}} Leg what the other tiers are sent and give back;
 *   `begins` are states that a request may bring
 * @typedef {{cuts: number[], slice: Slice | null, leg: Leg, links: number}} Route `slice` is this page's part, and
 *   `links` is how many other tiers have one
 */
import { ManifestError } from "./wire.js";

export class Routes {
  /** @param {any} manifest @throws {ManifestError} It is none of a site. */
  constructor(manifest) {
    if (manifest?.schema_version !== 2) {
      throw new ManifestError("this is no manifest that `export web` of this release wrote");
    }
    const ports = (names) => names.map((name) => manifest.ports[name]);
    const { tiers, tier, size, cuts, states, inputs, outputs } = manifest;
    Object.assign(this, { manifest, tiers, size, cuts, states, inputs: ports(inputs), outputs });
    this.mine = tiers.indexOf(tier);
    this.isBottom = this.mine === 0;
    this.slices = manifest.slices.map((slice) => ({
      ...slice,
      inputs: ports(slice.inputs),
      outputs: ports(slice.outputs),
      keeps: states.filter(({ input }) => slice.keeps.includes(input)),
    }));
    this.legs = manifest.legs.map((leg) => ({ ...leg, answers: ports(leg.answers) }));
  }

  /** Whether there are slices for some cuts. @param {number[]} cuts */
  has(cuts) {
    return Object.hasOwn(this.manifest.routes, cuts.join());
  }

  /** @param {number[]} cuts @returns {Route} @throws {ManifestError} There is no slice for a range. */
  route(cuts) {
    if (!this.has(cuts)) throw new ManifestError(`there are no slices for [${cuts}]: split --all-candidates`, { status: 404 });
    const [slice, leg, links] = this.manifest.routes[cuts.join()];
    return { cuts: [...cuts], slice: this.slices[slice] ?? null, leg: this.legs[leg], links };
  }
}
