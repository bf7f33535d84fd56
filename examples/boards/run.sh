#!/usr/bin/env bash
# Three boards in a row: see README.md.
set -euo pipefail
cd "$(dirname "$0")"
. ../up.sh
dnnsplit-onnx zoo get tiny_residual -o model.onnx --force
dnnsplit-onnx split model.onnx --tiers tiers.toml --objective throughput -o slices --force
serve_here
dnnsplit-onnx run slices --url "$url" --runs 20 --concurrency 4
