"""Tree ensembles of ai.onnx.ml.

Which path a row takes is data; every tree counts its deepest one: a comparison per node on it (set
membership too) and an addition for each weight of the fullest leaf. Then the post-transform per score
and, to choose a label, a comparison per class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dnnsplit_onnx.work.flops.elementwise import SIGMOID
from dnnsplit_onnx.work.flops.ml import class_labels, examples, post_transform
from dnnsplit_onnx.work.flops.reduction import SOFTMAX
from dnnsplit_onnx.work.flops.registry import ML, register
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork
from dnnsplit_onnx.work.flops.work import Work

Ints = npt.NDArray[np.int64]


class _Branches(NamedTuple):
    """Where each node goes, as positions in the node list; -1 where it goes to a leaf."""

    when_true: Ints
    when_false: Ints


def _deepest(roots: Ints, branches: _Branches) -> Ints:
    """Comparisons on the deepest path from each root, walking all trees a level at a time.

    Raises:
        UnknownWork: The nodes do not form trees.
    """
    depth = np.zeros(len(roots), np.int64)
    tree, node, level, visited = np.arange(len(roots)), roots, 0, 0
    while node.size:
        level += 1
        visited += node.size
        if visited > len(branches.when_true):
            raise UnknownWork
        depth[tree] = level
        children = np.concatenate([branches.when_true[node], branches.when_false[node]])
        inner = children >= 0
        tree, node = np.concatenate([tree, tree])[inner], children[inner]
    return depth


# In opset 5 the post-transform is an enum: none, softmax, logistic, softmax of the non-zero, probit.
_TRANSFORMS = (0, SOFTMAX, SIGMOID, SOFTMAX, 1)


@register("TreeEnsemble", domain=ML)
def tree_ensemble(node: NodeView) -> Work:
    """TreeEnsemble (opset 5): a leaf holds one weight."""
    rows, _ = examples(node)
    roots = _ints(node, "tree_roots")
    branches = _Branches(_unless_leaf(node, "true"), _unless_leaf(node, "false"))
    positions = np.concatenate([roots, *branches])
    count = len(branches.when_true)
    if len(branches.when_false) != count or not count or not np.isin(positions, np.arange(-1, count)).all():
        raise UnknownWork
    per_row = int(_deepest(roots, branches).sum()) + len(roots)
    transform = node.int_attribute("post_transform", 0)
    if transform not in range(len(_TRANSFORMS)):
        raise UnknownWork
    scores = _TRANSFORMS[transform] * node.int_attribute("n_targets", 1)
    return Work(elementwise=rows * (per_row + scores))


def _unless_leaf(node: NodeView, outcome: str) -> Ints:
    children, leaves = _ints(node, f"nodes_{outcome}nodeids"), _ints(node, f"nodes_{outcome}leafs")
    if len(children) != len(leaves):
        raise UnknownWork
    return np.where(leaves != 0, -1, children)


@register("TreeEnsembleRegressor", domain=ML)
def tree_ensemble_regressor(node: NodeView) -> Work:
    """TreeEnsembleRegressor: the paths, the leaves, the post-transform per target."""
    rows, _ = examples(node)
    scores = node.int_attribute("n_targets", 1) * post_transform(node)
    return Work(elementwise=rows * (_paths(node, "target") + scores))


@register("TreeEnsembleClassifier", domain=ML)
def tree_ensemble_classifier(node: NodeView) -> Work:
    """TreeEnsembleClassifier: the paths, the leaves, the post-transform and a comparison per class."""
    rows, _ = examples(node)
    classes = class_labels(node, "classlabels_int64s", "classlabels_strings")
    return Work(elementwise=rows * (_paths(node, "class") + classes * (post_transform(node) + 1)))


def _paths(node: NodeView, leaves: str) -> int:
    """Comparisons and additions of one row, from the opset 1 to 4 attributes."""
    trees, ids = _ints(node, "nodes_treeids"), _ints(node, "nodes_nodeids")
    modes = node.texts_attribute("nodes_modes")
    if not len(trees) == len(ids) == len(modes) or not len(trees):
        raise UnknownWork
    keys = _keys(trees, ids)
    order = np.argsort(keys, kind="stable")
    is_leaf = np.array([mode == "LEAF" for mode in modes])

    def positions(attribute: str) -> Ints:
        ids = _ints(node, attribute)
        if len(ids) != len(trees):
            raise UnknownWork
        wanted = _keys(trees, ids)
        found = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        if not (is_leaf | (keys[found] == wanted)).all():
            raise UnknownWork  # a child that is not in the list
        # A child that is a leaf costs no comparison.
        return np.where(is_leaf | is_leaf[found], -1, found)

    branches = _Branches(positions("nodes_truenodeids"), positions("nodes_falsenodeids"))
    children = np.concatenate(branches)
    roots = np.setdiff1d(np.flatnonzero(~is_leaf), children)
    if not np.isin(trees[~is_leaf], trees[roots]).all():
        raise UnknownWork  # a tree without a root goes round in circles
    return int(_deepest(roots, branches).sum()) + _leaf_weights(node, leaves)


def _leaf_weights(node: NodeView, leaves: str) -> int:
    """The weights of the fullest leaf, summed over the trees."""
    trees, ids = _ints(node, f"{leaves}_treeids"), _ints(node, f"{leaves}_nodeids")
    if len(trees) != len(ids):
        raise UnknownWork
    if not len(trees):
        return 0
    keys, counts = np.unique(np.stack([trees, ids]), axis=1, return_counts=True)
    _, tree = np.unique(keys[0], return_inverse=True)
    fullest = np.zeros(int(tree.max()) + 1, np.int64)
    np.maximum.at(fullest, tree, counts)
    return int(fullest.sum())


def _keys(trees: Ints, ids: Ints) -> Ints:
    return trees * (np.int64(1) << 32) + ids


def _ints(node: NodeView, name: str) -> Ints:
    attribute = node.attribute(name)
    return np.array([] if attribute is None else attribute.ints, np.int64)
