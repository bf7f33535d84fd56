/**
 * What goes from one request of a sequence to the next: a decoder's caches, the frame before this one; as in Python.
 * Loaded where a model keeps states. @import {Port, Slice, State, Tensors} from "./types.js"
 */
import { InputError, TYPES, count } from "./wire.js";

const copy = ({ dtype, shape, data }) => ({ dtype, shape, data: data.slice() });

/**
 * What the states of a slice are for a request: given with it, kept, or empty.
 * @param {Slice} slice @param {Tensors} values what else the request has
 * @param {Tensors | null} kept @param {Record<string, Port>} ports
 * @returns {Tensors}
 */
export function statesBefore({ inputs, keeps }, values, kept, ports) {
  const sizes = {}; // that what is given settles, of dimensions by name
  const firsts = new Set();
  for (const { name, shape } of inputs.filter((port) => values[port.name])) {
    if (shape?.length) firsts.add(values[name].shape[0]);
    shape?.forEach((dim, axis) => { sizes[dim] = values[name].shape[axis]; });
  }
  const first = firsts.size === 1 ? [...firsts][0] : 0; // which is a batch, most likely
  return Object.fromEntries(keeps.map(({ input, output, fixed }) => {
    if (values[input]) return [input, copy(values[input])];
    if (kept) return [input, kept[input]];
    if (output === null) throw new InputError(`state \`${input}\` stays for a whole sequence, and its first request has to bring it`);
    const { dtype, shape } = ports[input];
    const all = shape.map((dim, axis) => (typeof dim === "number" ? dim : sizes[dim] ?? fixed?.[dim] ?? (axis ? 0 : first)));
    return [input, { dtype, shape: all, data: new TYPES[dtype][2](count(all)) }];
  }));
}

/**
 * What they are for the next request.
 * @param {State[]} keeps @param {Tensors} before
 * @param {Tensors} made by the slice @param {Tensors} values what else there is
 * @returns {Tensors}
 */
export function statesAfter(keeps, before, made, values) {
  return Object.fromEntries(keeps.map(({ input, output, kept_if_empty: isKept }) => {
    const old = before[input];
    const next = made[output];
    if (output === null || (isKept && next && !count(next.shape) && count(old.shape))) return [input, old];
    return [input, next ?? before[output] ?? copy(values[output])];
  }));
}

/**
 * Requests of one sequence, one after another: a text, a stream. The first chooses the cuts, and the
 * others keep to them: each tier keeps the states of its slices. One that failed may be sent again,
 * unless a tier has lost the states (status 409).
 */
export class Conversation {
  /** @param {import("./dnnsplit.js").Client} client @param {number[]} [cuts] these and no others */
  constructor(client, cuts) {
    Object.assign(this, { client, cuts });
    const random = new Uint32Array(4).map(() => Math.random() * 2 ** 32); // Node 18 has no other
    const name = [...(globalThis.crypto?.getRandomValues(random) ?? random)];
    this.name = name.map((part) => part.toString(16).padStart(8, "0")).join("");
    this.step = 0;
    /** The states of the slice here, before a request and after it. @type {Tensors | null} */
    this.kept = this.after = null;
  }

  /** What tells the other tiers of it. */
  get parameters() {
    const { name, step, isLast } = this;
    return { sequence_id: name, sequence_start: step === 0, sequence_end: isLast, dnnsplit_step: step };
  }

  /** The next request, as of `Client`. @param {Tensors} inputs @param {{deadline_s?: number, isLast?: boolean}} [how] */
  async infer(inputs, { deadline_s, isLast = false } = {}) {
    this.isLast = isLast;
    const answer = await this.client.infer(inputs, { deadline_s, cuts: this.cuts, sequence: this });
    Object.assign(this, { step: this.step + 1, kept: this.after, cuts: answer.cuts });
    return answer;
  }
}
