"""Rows shared among the machines of a tier: where tiling ends, and how many rows each gets."""

from dnnsplit_onnx.planning.sharing.search import TierRows, share_fixed, share_rows
from dnnsplit_onnx.planning.sharing.seconds import MachineSeconds

__all__ = ["MachineSeconds", "TierRows", "share_fixed", "share_rows"]
