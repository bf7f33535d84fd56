#!/usr/bin/env bash
# A Triton server as the top tier: see README.md.
set -euo pipefail
cd "$(dirname "$0")"
dnnsplit-onnx zoo get tiny_residual -o model.onnx --force
dnnsplit-onnx split model.onnx --tiers tiers.toml --at block1_add -o slices --force
dnnsplit-onnx export triton slices --tier triton -o repository --force
find repository -type f
