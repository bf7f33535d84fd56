#!/usr/bin/env bash
# A phone's browser and a server: see README.md.
set -euo pipefail
cd "$(dirname "$0")"
dnnsplit-onnx zoo get tiny_residual -o model.onnx --force
dnnsplit-onnx split model.onnx --tiers tiers.toml --at block1_add -o slices --force
dnnsplit-onnx export web slices ${ORT_WEB:+--ort-web "$ORT_WEB"} -o site --force
