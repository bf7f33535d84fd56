/** Tensors of pictures and of files. */
import { count } from "./wire.js";

/** How pixels from 0 to 255 become numbers: a mean and a deviation for each channel. */
const SCALINGS = {
  unit: [[0, 0, 0], [255, 255, 255]],
  signed: [[127.5, 127.5, 127.5], [127.5, 127.5, 127.5]],
  imagenet: [[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]],
  bytes: [[0, 0, 0], [1, 1, 1]],
};
const NPY = {
  "|b1": "bool", "|u1": "uint8", "<u2": "uint16", "<u4": "uint32", "<u8": "uint64",
  "|i1": "int8", "<i2": "int16", "<i4": "int32", "<i8": "int64", "<f2": "float16", "<f4": "float", "<f8": "double",
};

/**
 * Where the picture's sides and colours are in an input; null if it is no picture.
 * @param {import("./types.js").Port} port @param {Record<string, number>} bindings
 * @returns {{height: number, width: number, channels: number, first: boolean} | null}
 */
export function pictureOf({ name, dtype, shape }, bindings) {
  if (shape?.length !== 4 || !["float", "uint8"].includes(dtype)) return null;
  const sizes = shape.map((size, axis) => (typeof size === "number" ? size : bindings[size ?? `${name}.${axis}`] ?? 1));
  const isColour = (size) => size === 3 || size === 1;
  const first = isColour(sizes[1]) && !isColour(sizes[3]);
  if (sizes[0] !== 1 || (!first && !isColour(sizes[3]))) return null;
  const [channels, height, width] = first ? sizes.slice(1) : [sizes[3], sizes[1], sizes[2]];
  return height >= 8 && width >= 8 ? { height, width, channels, first } : null;
}

/**
 * The tensor of a picture that was drawn in its size.
 * @param {Uint8ClampedArray} rgba @param {string} dtype @param {NonNullable<ReturnType<typeof pictureOf>>} place
 * @param {keyof typeof SCALINGS} scaling
 */
export function tensorOf(rgba, dtype, { height, width, channels, first }, scaling) {
  const [mean, deviation] = dtype === "uint8" ? SCALINGS.bytes : SCALINGS[scaling];
  const pixels = height * width;
  const data = new (dtype === "uint8" ? Uint8Array : Float32Array)(pixels * channels);
  for (let at = 0; at < pixels; at += 1) {
    const [r, g, b] = rgba.subarray(4 * at, 4 * at + 3);
    const colours = channels === 1 ? [0.299 * r + 0.587 * g + 0.114 * b] : [r, g, b];
    colours.forEach((colour, channel) => {
      data[first ? channel * pixels + at : at * channels + channel] = (colour - mean[channel]) / deviation[channel];
    });
  }
  return { dtype, shape: first ? [1, channels, height, width] : [1, height, width, channels], data };
}

/**
 * The tensor of a file of numpy's (`numpy.save`).
 * @param {ArrayBuffer} buffer @param {Record<string, any>} types of wire.js
 */
export function readNpy(buffer, types) {
  const bytes = new Uint8Array(buffer);
  if (String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY") throw new Error("this is no .npy file");
  const view = new DataView(buffer);
  const start = bytes[6] === 1 ? 10 : 12;
  const length = bytes[6] === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const head = new TextDecoder().decode(bytes.subarray(start, start + length));
  const dtype = NPY[/'descr': '([^']*)'/.exec(head)?.[1]];
  const shape = (/'shape': \(([^)]*)\)/.exec(head)?.[1] ?? "").split(",").filter((size) => size.trim()).map(Number);
  if (!dtype || !head.includes("'fortran_order': False")) throw new Error("its type or order of elements is not read here");
  const [, , Elements, itemsize] = types[dtype];
  const data = new Elements(buffer.slice(start + length));
  if (data.length !== count(shape)) throw new Error(`it has ${data.length * itemsize} bytes, not those of its shape`);
  return { dtype, shape, data };
}
