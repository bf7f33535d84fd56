/** What the codes of a cut can hold, as the Python edge has it. Loaded where a slice writes one. */
import { InputError } from "./wire.js";

/** Refuses what a code cannot hold. @param {any[]} ports with a code @param {import("./types.js").Tensors} made */
export function checkCodes(ports, made) {
  for (const { name, dtype, code, stands_for: value } of ports) {
    // Float16 stands as its bits: all ones in the exponent are infinity and NaN.
    const isFinite = { float: Number.isFinite, double: Number.isFinite, float16: (bits) => (bits & 0x7c00) !== 0x7c00 }[dtype];
    if (isFinite && !made[name].data.every((element) => isFinite(element))) {
      const beyond = code === "fp16" ? "beyond 65504" : "too wide a range";
      throw new InputError(`value \`${value}\` holds what ${code} cannot: NaN, infinity, or ${beyond}`, { status: 422 });
    }
  }
}
