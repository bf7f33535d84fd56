#!/usr/bin/env bash
# A language model over two machines: see README.md.
set -euo pipefail
cd "$(dirname "$0")"
. ../up.sh
dnnsplit-onnx zoo get tiny_decoder -o model.onnx --force
dnnsplit-onnx inspect model.onnx
positions=$(dnnsplit-onnx inspect model.onnx --json | python3 -c '
import json, sys
cuts = [cut["position"] for cut in json.load(sys.stdin)["cuts"]]
print(min(cuts, key=lambda at: abs(at - max(cuts) / 2)))')
dnnsplit-onnx split model.onnx --tiers tiers.toml --at "$positions" -o slices --force
serve_here
dnnsplit-onnx generate slices --url "$url" --tokens 5,17,3,42 --max-new 16
