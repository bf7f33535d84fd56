"""Running models with onnxruntime: sessions, the chain of slices, and their inputs.

Everything here takes a manifest, never a plan. Nothing here imports onnxruntime before it
is asked to run something (`provider.runtime`).
"""
