"""Runs bound to the memory of a device, with the CPU for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnxruntime
import pytest
from nets import feeds, run

import onnx_gradcam as ogc
from onnx_gradcam.engine import providers
from onnx_gradcam.engine.session import CPU, Options, Session
from onnx_gradcam.errors import InputError

PROTO = builders.plain()
DATA = PROTO.SerializeToString()
FED = feeds(PROTO)
TENSORRT = "TensorrtExecutionProvider"


# ------------------------------------------------------------------------- bound memory, with the CPU for a device


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The CPU provider taken for one with memory of its own; what was bound, in order."""
    monkeypatch.setitem(providers.MEMORY, CPU, "cpu")
    made: list[str] = []
    before = onnxruntime.OrtValue.ortvalue_from_numpy

    def counted(array: np.ndarray, *device: Any) -> Any:
        made.append(f"{array.shape} on {device}")
        return before(array, *device)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", staticmethod(counted))
    return made


def test_bound_runs_give_the_same_and_move_each_input_once(bound: list[str]) -> None:
    session = Session(DATA, Options(providers=("cpu",)))
    found = session.run(["logits"], {"x": FED["x"][:, :, ::-1]})["logits"]
    np.testing.assert_array_equal(found, run(PROTO, {"x": np.ascontiguousarray(FED["x"][:, :, ::-1])})["logits"])
    assert bound == ["(2, 3, 8, 8) on ('cpu', 0)"]


def test_bound_results_come_in_the_order_asked_for(bound: list[str]) -> None:
    proto = builders.two_outputs()
    expected = run(proto, FED)
    found = Session(proto.SerializeToString(), Options(providers=("cpu",))).run(["probabilities", "flat"], FED)
    assert list(found) == ["probabilities", "flat"]
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    "fed", [{}, {"x": FED["x"][0]}, {"x": FED["x"].astype(np.float64)}, {"x": FED["x"], "y": FED["x"]}]
)
def test_arrays_that_a_bound_run_refuses(fed: dict[str, np.ndarray], bound: list[str]) -> None:
    with pytest.raises(InputError, match="the runtime refused the input"):
        Session(DATA, Options(providers=("cpu",))).run(["logits"], fed)


def test_sequences_are_not_bound(bound: list[str]) -> None:
    proto = builders.zipmap()
    session = Session(proto.SerializeToString(), Options(providers=("cpu",)))
    found = session.run(session.outputs, feeds(proto))
    assert any(isinstance(result, list) for result in found.values())
    assert bound == []


def out_of_memory(array: np.ndarray, *device: Any) -> Any:
    raise RuntimeError("Available memory of 0 is smaller than requested bytes of 6144")


def test_a_bound_run_that_fails_is_repeated_once_and_said(bound: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(DATA, Options(providers=("cpu",)))
    assert session.warnings == ()
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", staticmethod(out_of_memory))
    found = session.run(["logits"], FED)["logits"]
    np.testing.assert_array_equal(found, run(PROTO, FED)["logits"])
    (warning,) = session.warnings
    assert warning.startswith("CPUExecutionProvider could not run on arrays in the device's memory (Available memory")
    monkeypatch.undo()
    monkeypatch.setattr(session, "_run_bound", None)  # is not tried again
    np.testing.assert_array_equal(session.run(["logits"], FED)["logits"], found)


def test_arrays_that_do_not_fit_are_the_users_fault_and_no_warning(bound: list[str]) -> None:
    session = Session(DATA, Options(providers=("cpu",)))
    with pytest.raises(InputError):
        session.run(["logits"], {"x": FED["x"][0]})
    assert session.warnings == ()
    session.run(["logits"], FED)
    assert bound[-1] == "(2, 3, 8, 8) on ('cpu', 0)", "runs are bound as before"


def test_an_explanation_says_that_its_run_was_repeated(
    bound: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", staticmethod(out_of_memory))
    with ogc.Explainer(PROTO, providers=["cpu"]) as explainer:
        explanation = explainer.explain(FED["x"])
        assert [w for w in explanation.warnings if "in the device's memory" in w] == [
            *explainer.network.at_layers.warnings
        ]
    explanation.save(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert any("in the device's memory" in warning for warning in manifest["results"][0]["warnings"])
    assert any("in the device's memory" in note for note in ogc.verify(PROTO, providers=["cpu"]).notes)


def test_an_explanation_through_bound_memory(bound: list[str]) -> None:
    x = FED["x"]
    plain = ogc.Explainer(PROTO, providers=["CPUExecutionProvider"])
    mine = plain.explain(x, target=ogc.TopK(2))
    assert len(bound) > 1
    providers.MEMORY.pop(CPU)
    other = ogc.Explainer(PROTO, providers=["cpu"]).explain(x, target=ogc.TopK(2))
    np.testing.assert_array_equal(mine.heatmap, other.heatmap)
