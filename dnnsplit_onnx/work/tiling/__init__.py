"""Tiles: which rows of a run of nodes' inputs some rows of its outputs depend on.

rows.py      the arithmetic of windows
view.py      a node and the shapes around it
rules.py     each operator's motion: what its rows read, and along which axis they lie
spatial.py   the same for windows that slide: convolutions, pools, padding, resizing
regions.py   a run of nodes, and what a tile of it computes
finding.py   where the rows of a run lie, and how long it can be
"""

from dnnsplit_onnx.work.tiling.finding import longest_region, region_of
from dnnsplit_onnx.work.tiling.regions import Region, Tile, TiledNode, scaled, shares
from dnnsplit_onnx.work.tiling.rows import Rows

__all__ = ["Region", "Rows", "Tile", "TiledNode", "longest_region", "region_of", "scaled", "shares"]
