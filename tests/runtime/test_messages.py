import pytest

from dnnsplit_onnx.runtime.messages import clear_line

PREFIX = "[ONNXRuntimeError] : 1 : FAIL : "


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            PREFIX + "/onnxruntime_src/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, "
            "const PathString&, const logging::Logger&) Unsupported model IR version: 99, "
            "max supported IR version: 13\n",
            "Unsupported model IR version: 99, max supported IR version: 13",
        ),
        (
            "/src/python/ortvalue.cc:460 ns::addMethods(module&)::<lambda(const OrtValue*)> "
            "value->IsTensor() was false.",
            "value->IsTensor() was false",
        ),
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code returned while running "
            "Gather node. Name:'g' Status Message: indices element out of data bounds, idx=7",
            "node `g` (Gather): indices element out of data bounds, idx=7",
        ),
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: x for the "
            "following indices\n"
            " index: 1 Got: 4 Expected: 3\n Please fix either the inputs/outputs or the model.",
            "Got invalid dimensions for input: x for the following indices index: 1 Got: 4 Expected: 3 "
            "Please fix either the inputs/outputs or the model",
        ),
        (
            "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from /a/m.onnx failed:Protobuf parsing.",
            "Protobuf parsing",
        ),
        ("Required inputs (['i']) are missing", "Required inputs (['i']) are missing"),
        ("/a/b.cc:1 f(int x", "f(int x"),  # a signature that never closes is kept
    ],
)
def test_keeps_the_sentence(raw: str, line: str) -> None:
    assert clear_line(RuntimeError(raw)) == line


def test_is_one_line_of_bounded_length() -> None:
    line = clear_line(RuntimeError("word\n" * 1000))
    assert len(line) <= 300
    assert "\n" not in line
