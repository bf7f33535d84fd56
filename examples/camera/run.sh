#!/usr/bin/env bash
# A camera that keeps its pictures at home: see README.md.
set -euo pipefail
cd "$(dirname "$0")"
dnnsplit-onnx zoo get tiny_residual -o model.onnx --force
dnnsplit-onnx plan model.onnx --tiers tiers.toml
dnnsplit-onnx split model.onnx --tiers tiers.toml -o slices --force
# The values that leave the house, and what the house's slice reads.
python3 - <<'PYTHON'
import json

manifest = json.load(open("slices/manifest.json"))
home, *above = manifest["slices"]
pictures = {port["name"] for port in home["inputs"]}
crossing = {port["name"] for one in above for port in one["inputs"]}
print("stays at home:", ", ".join(sorted(pictures)))
print("crosses:", ", ".join(sorted(crossing)) or "nothing")
assert not pictures & crossing
PYTHON
