import pytest

from dnnsplit_onnx.measuring.measure import Latency, machine


def test_percentiles() -> None:
    latency = Latency.of([n / 1000 for n in range(1, 102)])  # 1 ms to 101 ms
    assert latency.p50_ms == pytest.approx(51)
    assert latency.p95_ms == pytest.approx(96)
    assert latency.p99_ms == pytest.approx(100)
    assert latency.min_ms == pytest.approx(1)
    assert latency.runs == 101
    assert latency.throughput_per_s == pytest.approx(1000 / 51)


def test_machine_says_what_a_figure_needs() -> None:
    found = machine()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found.keys() & {"onnxruntime", "onnxruntime-gpu"}
