from __future__ import annotations

from typing import Any

import pytest

from dnnsplit_onnx.work.flops import Work
from tests.work.flops.counting import ML, count, elementwise, work_of

X = (10, 4)


def test_scaling() -> None:
    assert elementwise("Scaler", [X], [X], domain=ML, offset=[0.0], scale=[1.0]) == 80
    assert elementwise("Binarizer", [X], [X], domain=ML) == 40
    assert elementwise("Imputer", [X], [X], domain=ML) == 40
    assert elementwise("Normalizer", [X], domain=ML) == 80
    assert elementwise("Normalizer", [X], domain=ML, norm="L1") == 120
    assert elementwise("Normalizer", [X], domain=ML, norm="L2") == 130
    assert count("Normalizer", [X], domain=ML, norm="L3") is None
    assert count("Normalizer", [()], domain=ML) is None


def test_linear_models() -> None:
    # 3 targets or classes x 4 features
    model = {"domain": ML, "coefficients": [0.5] * 12, "intercepts": [0.0] * 3}
    assert work_of("LinearRegressor", [X], targets=3, **model) == Work(120, 30)
    for transform, operations in {
        "NONE": 0,
        "SOFTMAX": 5,
        "LOGISTIC": 4,
        "SOFTMAX_ZERO": 5,
        "PROBIT": 1,
    }.items():
        work = work_of("LinearRegressor", [X], targets=3, post_transform=transform, **model)
        assert work == Work(120, 30 + 30 * operations)
    assert work_of("LinearRegressor", [(4,)], targets=3, **model) == Work(12, 3)
    assert work_of("LinearClassifier", [X], classlabels_ints=[0, 1, 2], **model) == Work(120, 60)
    softmax = work_of("LinearClassifier", [X], classlabels_ints=[0, 1, 2], post_transform="SOFTMAX", **model)
    assert softmax == Work(120, 60 + 150)
    assert count("LinearRegressor", [X], post_transform="MYSTERY", **model) is None
    assert count("LinearClassifier", [(10, 5)], classlabels_ints=[0, 1, 2], **model) is None


@pytest.mark.parametrize(
    ("kernel", "macs", "operations"),
    # 10 rows, 6 support vectors of 4 features: 240 MACs of kernels, 60 of the decision; rho 10
    [("LINEAR", 300, 10), ("POLY", 300, 10 + 180), ("SIGMOID", 300, 10 + 180), ("RBF", 300, 10 + 240 + 120)],
)
def test_svm_regressor(kernel: str, macs: int, operations: int) -> None:
    options = {"domain": ML, "n_supports": 6, "coefficients": [1.0] * 6, "kernel_type": kernel}
    assert work_of("SVMRegressor", [X], **options) == Work(macs, operations)


def test_linear_svm_regressor() -> None:
    model = {"domain": ML, "coefficients": [1.0] * 4}
    assert work_of("SVMRegressor", [X], **model) == Work(40, 10)
    assert work_of("SVMRegressor", [X], post_transform="LOGISTIC", **model) == Work(40, 10 + 40)


def test_svm_classifier() -> None:
    # 3 classes, 6 support vectors in two decisions each; 3 pairs: rho and a vote; 3 comparisons
    options: dict[str, Any] = {
        "domain": ML,
        "classlabels_ints": [0, 1, 2],
        "vectors_per_class": [1, 2, 3],
        "coefficients": [1.0] * 12,
    }
    assert work_of("SVMClassifier", [X], kernel_type="LINEAR", **options) == Work(240 + 120, 60 + 30)
    calibrated = work_of("SVMClassifier", [X], kernel_type="LINEAR", prob_a=[1.0] * 3, **options)
    assert calibrated == Work(360, 90 + 150)
    assert count("SVMClassifier", [X], kernel_type="MYSTERY", **options) is None
    del options["classlabels_ints"]
    assert count("SVMClassifier", [X], **options) is None
    linear = {"domain": ML, "classlabels_strings": ["a", "b", "c"], "coefficients": [1.0] * 12}
    assert work_of("SVMClassifier", [X], **linear) == Work(120, 60)
    assert work_of("SVMClassifier", [X], post_transform="LOGISTIC", **linear) == Work(120, 60 + 120)


#      tree 0:  0 --- 1 --- 3 leaf        tree 1: 0 --- 1 leaf
#               |     +---- 4 leaf                +---- 2 leaf
#               +---- 2 leaf
TREES: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0, 0, 0, 1, 1, 1],
    "nodes_nodeids": [0, 1, 2, 3, 4, 0, 1, 2],
    "nodes_truenodeids": [1, 3, 0, 0, 0, 1, 0, 0],
    "nodes_falsenodeids": [2, 4, 0, 0, 0, 2, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
}


def leaves(kind: str) -> dict[str, list[int]]:
    # The leaves of tree 0 hold one weight, those of tree 1 hold two.
    return {f"{kind}_treeids": [0, 0, 0, 1, 1, 1, 1], f"{kind}_nodeids": [2, 3, 4, 1, 1, 2, 2]}


def test_tree_ensembles() -> None:
    # 10 rows x (depths 2 + 1, leaves 1 + 2)
    options = TREES | leaves("target") | {"domain": ML}
    assert elementwise("TreeEnsembleRegressor", [X], n_targets=2, **options) == 60
    assert (
        elementwise("TreeEnsembleRegressor", [X], post_transform="LOGISTIC", **options) == 100
    )  # one target
    options = {"domain": ML, "classlabels_int64s": [0, 1], **TREES, **leaves("class")}
    assert elementwise("TreeEnsembleClassifier", [X], **options) == 80  # and a comparison per class
    assert elementwise("TreeEnsembleClassifier", [X], post_transform="LOGISTIC", **options) == 160


def test_tree_ensemble_of_opset_5() -> None:
    # Node 0: to node 1 or leaf; node 1: two leaves; node 2: the root of another tree.
    options = {
        "tree_roots": [0, 2],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [0, 1, 1],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falseleafs": [1, 1, 1],
    }
    assert elementwise("TreeEnsemble", [X], domain=ML, **options) == 10 * (2 + 1 + 2)
    assert elementwise("TreeEnsemble", [X], domain=ML, n_targets=3, post_transform=1, **options) == 200
    assert elementwise("TreeEnsemble", [X], domain=ML, post_transform=2, **options) == 50 + 40
    assert elementwise("TreeEnsemble", [X], domain=ML, post_transform=4, **options) == 50 + 10
    assert count("TreeEnsemble", [X], domain=ML, post_transform=5, **options) is None
    assert count("TreeEnsemble", [X], domain=ML, **options | {"nodes_falseleafs": [1, 1]}) is None


def test_what_is_no_tree_is_uncounted() -> None:
    cycle = TREES | {"nodes_truenodeids": [1, 0, 0, 0, 0, 1, 0, 0]}  # node 1 goes back to node 0
    assert count("TreeEnsembleRegressor", [X], domain=ML, **cycle, **leaves("target")) is None
    inner = TREES | {"nodes_truenodeids": [1, 1, 0, 0, 0, 1, 0, 0]}  # node 1 goes to itself
    assert count("TreeEnsembleRegressor", [X], domain=ML, **inner, **leaves("target")) is None
    missing = TREES | {"nodes_truenodeids": [1, 9, 0, 0, 0, 1, 0, 0]}
    assert count("TreeEnsembleRegressor", [X], domain=ML, **missing, **leaves("target")) is None
    ragged = TREES | {"nodes_truenodeids": [1, 3]}
    assert count("TreeEnsembleRegressor", [X], domain=ML, **ragged, **leaves("target")) is None
    lonely = leaves("target") | {"target_nodeids": [2]}
    assert count("TreeEnsembleRegressor", [X], domain=ML, **TREES, **lonely) is None
    assert elementwise("TreeEnsembleRegressor", [X], domain=ML, **TREES) == 30  # leaves without weights
    assert count("TreeEnsembleRegressor", [X], domain=ML) is None
    outside = {"tree_roots": [5], "nodes_truenodeids": [0], "nodes_falsenodeids": [0]}
    flags = {"nodes_trueleafs": [1], "nodes_falseleafs": [1]}
    assert count("TreeEnsemble", [X], domain=ML, **outside, **flags) is None
