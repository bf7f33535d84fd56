/**
 * Types that the client's modules share; nothing loads this file.
 *
 * @typedef {object} Tensor
 * @property {string} dtype Element type as onnx spells it, `float`.
 * @property {number[]} shape
 * @property {ArrayBufferView | string[]} data Row-major; float16 and bfloat16 as their bits, bool as 0 and 1.
 * @typedef {Record<string, Tensor>} Tensors
 * @typedef {{name: string, dtype: string, shape: (number | string | null)[] | null, kind: string}} Port
 *
 * @typedef {{input: string, output: string | null, kept_if_empty?: boolean, fixed?: Record<string, number>}} State
 * @typedef {{file: string, start: number, stop: number, inputs: Port[], outputs: Port[], keeps: State[],
 *   data: string[]}} Slice `keeps` goes from one request of a sequence to the next
 * @typedef {{arrives: string[], begins: string[], answers: Port[]}} Leg what the other tiers are sent and give back;
 *   `begins` are states that a request may bring
 * @typedef {{cuts: number[], slice: Slice | null, leg: Leg, links: number}} Route `slice` is this page's part, and
 *   `links` is how many other tiers have one
 *
 * @typedef {{ort: any, url?: string, token?: string, backend?: "webgpu" | "wasm", spare?: () => Promise<any>,
 *   most?: number, deadline_s?: number, fetch?: typeof fetch}} Options onnxruntime-web, and one on WASM where its
 *   WebGPU fails; the other tiers' server, without which all runs here; how many sessions are kept open
 *
 * @typedef {{tier: string, queue_s: number, compute_s: number, total_s: number, receive_s?: number}} Trace
 * @typedef {{total_s: number, sent_nbytes: number, received_nbytes: number}} Hop
 * @typedef {{outputs: Tensors, cuts: number[], seconds: number, attempts: number, hop: Hop | null,
 *   tiers: Trace[]}} Answer
 */
export {};
