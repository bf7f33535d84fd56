// Stands for onnxruntime-web where all nodes copy: `first` of `x`, `last` of `first`.
export const env = { wasm: {}, versions: {} };
export class Tensor {
  constructor(type, data, dims) {
    Object.assign(this, { type, data, dims });
  }
  async getData() {
    return this.data;
  }
}
export const InferenceSession = {
  async create(model, { executionProviders }) {
    if (executionProviders.includes("webgpu")) throw new Error("no adapter answers");
    const made = new TextDecoder("latin1").decode(model).includes("last") ? "last" : "first";
    return { inputNames: ["x"], outputNames: [made], run: async ({ x }) => ({ [made]: x }), release: async () => {} };
  },
};
