/** What a request passes, for any cuts that there are slices for: as `export web` wrote it down. @import {Route} from "./types.js" */
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
