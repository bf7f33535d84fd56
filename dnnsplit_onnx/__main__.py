"""`python -m dnnsplit_onnx`: the command line."""

import sys

from dnnsplit_onnx.cli import run

sys.exit(run())
