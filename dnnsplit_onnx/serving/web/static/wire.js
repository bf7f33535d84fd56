/** The Open Inference Protocol with its binary tensor extension, in the Python edge's bytes. @import {Port, Tensor, Tensors} from "./types.js" */

/** A request failed; no other answer will come. */
export class ServingError extends Error {
  /** @param {{link?: number | null, status?: number, retry_s?: number}} [more] */
  constructor(message, { link = null, status = 0, retry_s = 1 } = {}) {
    super(message);
    Object.assign(this, { name: this.constructor.name, link, status, retry_s });
  }
}
export class InputError extends ServingError {}
export class ManifestError extends ServingError {} // it, or a file, is not what was written
export class DeviceError extends ServingError {} // the runtime here cannot run a slice
export class LinkError extends ServingError {}
export class BusyError extends ServingError {} // no room for it now
export class DeadlineError extends ServingError {}
export class RefusedError extends ServingError {}

/** By onnx's name: the protocol's, the runtime's, and what holds elements. */
export const TYPES = {
  bool: ["BOOL", "bool", Uint8Array],
  uint8: ["UINT8", "uint8", Uint8Array],
  uint16: ["UINT16", "uint16", Uint16Array],
  uint32: ["UINT32", "uint32", Uint32Array],
  uint64: ["UINT64", "uint64", BigUint64Array],
  int8: ["INT8", "int8", Int8Array],
  int16: ["INT16", "int16", Int16Array],
  int32: ["INT32", "int32", Int32Array],
  int64: ["INT64", "int64", BigInt64Array],
  float16: ["FP16", "float16", Uint16Array],
  float: ["FP32", "float32", Float32Array],
  double: ["FP64", "float64", Float64Array],
  bfloat16: ["BF16", null, Uint16Array],
  string: ["BYTES", "string"],
};
const WRITER = new TextEncoder();
const READER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

let strings = null;

/** Loads what writes and reads strings. */
export async function withStrings() {
  strings ??= await import("./strings.js");
}

/** How many elements a shape has. @param {number[]} shape */
export const count = (shape) => shape.reduce((product, size) => product * size, 1);

/** Why a tensor is not one that a port takes; null if it is. @param {Port} port @param {Tensor} tensor */
export function misfit(port, { dtype, shape }) {
  if (dtype !== port.dtype) return `\`${port.name}\` is ${dtype}; it must be ${port.dtype}`;
  const fits = !port.shape || (port.shape.length === shape.length
    && port.shape.every((size, at) => typeof size !== "number" || size === shape[at]));
  const wanted = (port.shape ?? []).map((size) => size ?? "?").join(", ");
  return fits ? null : `\`${port.name}\` has the shape [${shape.join(", ")}]; it must be [${wanted}]`;
}

/** JSON as bytes: ASCII alone, nothing needless. */
function toText(message) {
  const escape = (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return WRITER.encode(JSON.stringify(message).replace(/[\u007f-\uffff]/g, escape));
}

/** A request's body. @param {[string, Tensor][]} tensors @param {object} rest of its JSON part */
export function encode(tensors, rest) {
  const buffers = tensors.map(([, tensor]) => raw(tensor));
  const inputs = tensors.map(([name, { dtype, shape }], at) => (
    { name, datatype: TYPES[dtype][0], shape, parameters: { binary_data_size: buffers[at].byteLength } }));
  const text = toText({ inputs, ...rest });
  return { bytes: join([text, ...buffers]), jsonLength: text.length };
}

/** One array of bytes. */
export function join(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}

/**
 * The parameters and outputs of an answer.
 * @param {ArrayBuffer} body @param {number} jsonLength of its JSON part @param {Port[]} wanted what was asked for
 * @returns {{parameters: Record<string, unknown>, tensors: Tensors}} @throws {RefusedError}
 */
export function decode(body, jsonLength, wanted) {
  const need = (holds, what) => {
    if (!holds) throw new RefusedError(`the answer is wrong: ${what}`);
  };
  let message = null;
  try {
    message = JSON.parse(READER.decode(new Uint8Array(body, 0, jsonLength)));
  } catch {
    need(false, "its JSON part is not JSON");
  }
  need(Array.isArray(message?.outputs), "`outputs` is not a list");
  const tensors = Object.create(null);
  let at = jsonLength;
  for (const entry of message.outputs) {
    const { name, datatype, shape } = entry ?? {};
    const port = wanted.find((one) => one.name === name);
    need(port && !(name in tensors), `output \`${name}\` was not asked for, or comes twice`);
    const { dtype } = port;
    const [type, , Elements] = TYPES[dtype];
    need(datatype === type, `output \`${name}\` is ${datatype}; it must be ${type}`);
    need(Array.isArray(shape) && shape.every((one) => Number.isSafeInteger(one) && one >= 0),
      `the shape of output \`${name}\` is not a list of sizes`);
    const wrong = misfit(port, { dtype, shape });
    need(!wrong, `output ${wrong}`);
    const nbytes = entry.parameters?.binary_data_size;
    need(Number.isSafeInteger(nbytes) && nbytes >= 0 && at + nbytes <= body.byteLength,
      `output \`${name}\` is not binary data of the body`);
    need(!Elements || count(shape) * Elements.BYTES_PER_ELEMENT === nbytes, `output \`${name}\` has ${nbytes} bytes for [${shape}]`);
    const part = body.slice(at, at + nbytes);
    const data = Elements ? new Elements(part) : strings.fromBytes(new Uint8Array(part), count(shape), need);
    need(dtype !== "bool" || data.every((byte) => byte < 2), `output \`${name}\` has bytes that are no BOOL`);
    tensors[name] = { dtype, shape, data };
    at += nbytes;
  }
  need(at === body.byteLength, "bytes follow its last output");
  for (const { name, kind } of wanted) need(name in tensors || kind === "optional", `it lacks \`${name}\``);
  return { parameters: message.parameters ?? {}, tensors };
}

/** @param {Tensor} tensor @returns {Uint8Array} */
function raw({ dtype, data }) {
  return dtype === "string" ? strings.toBytes(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
