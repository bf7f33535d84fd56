"""Slices: a model cut into one self-contained ONNX model per tier.

    index.py      what every slice of a graph needs to know, found out once
    ranges.py     what enters and leaves a range of nodes
    types.py      types of those values: proved or stated, never guessed
    ask_runtime.py, deduce.py   where onnx does not know them
    extract.py    a range of nodes as a model
    tags.py       its nodes marked with their tier, for viewers
    files.py      which bytes of the source make up its files
    copying.py    those bytes copied, and hashed beside the copy
    staging.py    a folder that appears whole or not at all
    slicer.py     a plan as a folder of slices
    candidates.py all ranges a plan may ever use, on one file of weights

Data flows down this list. Nothing here knows why a cut was chosen.
"""

from dnnsplit_onnx.slicing.candidates import slice_all_candidates
from dnnsplit_onnx.slicing.extract import Extract, extract
from dnnsplit_onnx.slicing.index import SliceIndex
from dnnsplit_onnx.slicing.slicer import slice_model

__all__ = ["Extract", "SliceIndex", "extract", "slice_all_candidates", "slice_model"]
