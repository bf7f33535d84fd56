/** Strings on the wire. Loaded where a model has some. */
import { join } from "./wire.js";

const WRITER = new TextEncoder();
const READER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @param {string[]} texts @returns {Uint8Array} */
export function toBytes(texts) {
  return join(texts.flatMap((text) => {
    const element = WRITER.encode(text);
    return [new Uint8Array(Uint32Array.of(element.length).buffer), element];
  }));
}

/** Elements of BYTES: each its length in four bytes, and itself. */
export function fromBytes(bytes, expected, need) {
  const view = new DataView(bytes.buffer);
  const texts = [];
  let at = 0;
  try {
    while (texts.length < expected) {
      const start = at + 4;
      at = start + view.getUint32(at, true);
      texts.push(READER.decode(bytes.subarray(start, at)));
    }
  } catch {
    need(false, "strings are not UTF-8, or too few");
  }
  need(at === bytes.length, "the lengths of strings do not add up");
  return texts;
}
