"""Tiles: which rows of a run of nodes' inputs some rows of its outputs depend on.

rows.py      the arithmetic of windows
view.py      a node and the shapes around it
rules.py     each operator's motion: what its rows read, and along which axis they lie
spatial.py   the same for windows that slide: convolutions, pools, padding, resizing
regions.py   a run of nodes: where its rows lie, and what a tile of it computes
"""

from dnnsplit_onnx.work.tiling.regions import (
    Region,
    Tile,
    TiledNode,
    longest_region,
    region_of,
    scaled,
    shares,
)
from dnnsplit_onnx.work.tiling.rows import Rows

__all__ = ["Region", "Rows", "Tile", "TiledNode", "longest_region", "region_of", "scaled", "shares"]
