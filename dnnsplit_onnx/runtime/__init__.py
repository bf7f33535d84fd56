"""onnxruntime as this package uses it: providers, sessions, values, made-up inputs, observed sizes.

Nothing here imports onnxruntime before it is asked to run something (`provider.runtime`).
"""
