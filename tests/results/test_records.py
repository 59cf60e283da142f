"""The small records that stand in results."""

from onnx_gradcam.results.records import Rectifiers


def test_how_a_count_reads() -> None:
    assert str(Rectifiers({}, {}, {})) == "0 rectifiers gated"
    assert str(Rectifiers({"Relu": 1}, {}, {})) == "1 rectifier gated: 1 Relu"
    assert str(Rectifiers({}, {}, {"Tanh": 2})) == "0 rectifiers gated; left alone: 2 Tanh"
    found = Rectifiers({"Relu": 2}, {"Elu": 1}, {"Sigmoid": 1, "Tanh": 1})
    assert str(found) == "3 rectifiers gated: 2 Relu; 1 smooth: 1 Elu; left alone: 1 Sigmoid, 1 Tanh"
    assert found.gated == 3
