/** What goes from one request of a sequence to the next: a decoder's caches, the frame before this one; as in Python. */
import { InputError, TYPES, count } from "./wire.js";

const copy = ({ dtype, shape, data }) => ({ dtype, shape, data: data.slice() });

/**
 * What the states of a slice are for a request: given with it, kept, or empty.
 * @param {import("./routes.js").Slice} slice @param {import("./wire.js").Tensors} values what else the request has
 * @param {import("./wire.js").Tensors | null} kept @param {Record<string, import("./wire.js").Port>} ports
 * @returns {import("./wire.js").Tensors}
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
 * @param {import("./routes.js").State[]} keeps @param {import("./wire.js").Tensors} before
 * @param {import("./wire.js").Tensors} made by the slice @param {import("./wire.js").Tensors} values what else there is
 * @returns {import("./wire.js").Tensors}
 */
export function statesAfter(keeps, before, made, values) {
  return Object.fromEntries(keeps.map(({ input, output, kept_if_empty: isKept }) => {
    const old = before[input];
    const next = made[output];
    if (output === null || (isKept && next && !count(next.shape) && count(old.shape))) return [input, old];
    return [input, next ?? before[output] ?? copy(values[output])];
  }));
}
