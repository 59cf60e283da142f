from __future__ import annotations

import gc
import importlib.metadata
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from nets import Net, feeds, run
from runtimes import installed

from onnx_gradcam.engine import session as runtime
from onnx_gradcam.engine.session import CPU, Options, Session, versions
from onnx_gradcam.errors import InputError, ModelError, ProviderError
from onnx_gradcam.graph.load import load

PROTO = builders.plain()
DATA = PROTO.SerializeToString()
FED = feeds(PROTO)
TENSORRT = "TensorrtExecutionProvider"


# ------------------------------------------------------------------------------------------------- running


def test_a_path_bytes_and_a_model_run(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(DATA)
    expected = run(PROTO, FED)["logits"]
    for given in (path, DATA, ir.from_proto(PROTO)):
        session = Session(given, Options())
        assert session.outputs == ("logits",)
        assert list(session.inputs) == ["x"]
        assert session.providers == (CPU,)
        np.testing.assert_allclose(session.run(["logits"], FED)["logits"], expected, rtol=1e-6)


def test_results_come_in_the_order_asked_for() -> None:
    proto = builders.two_outputs()
    found = Session(proto.SerializeToString(), Options()).run(["probabilities", "flat"], FED)
    assert list(found) == ["probabilities", "flat"]
    np.testing.assert_allclose(found["flat"], run(proto, FED)["flat"])
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-6)


def test_external_data_is_read_into_memory(tmp_path: Path) -> None:
    onnx.save(builders.plain(), tmp_path / "big.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = load(tmp_path / "big.onnx").model
    np.testing.assert_allclose(
        Session(model, Options()).run(["logits"], FED)["logits"], run(PROTO, FED)["logits"], rtol=1e-6
    )


def test_a_model_too_large_for_protobuf_goes_through_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "IN_MEMORY_LIMIT", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = ir.from_proto(PROTO)
    session = Session(model, Options())
    (folder,) = tmp_path.iterdir()
    assert {p.name for p in folder.iterdir()} == {"model.onnx", "model.data"}
    expected = run(PROTO, FED)["logits"]
    np.testing.assert_allclose(session.run(["logits"], FED)["logits"], expected, rtol=1e-6)
    np.testing.assert_allclose(run(ir.to_proto(model), FED)["logits"], expected, rtol=1e-6)
    del session
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("fed", "words"),
    [
        ({}, "'x'"),
        ({"x": FED["x"][0]}, "Invalid rank for input: x"),
        ({"x": FED["x"].astype(np.float64)}, "tensor(double)"),
        ({"x": FED["x"][:, :, :7]}, "index: 2 Got: 7 Expected: 8"),
        ({"x": FED["x"], "y": FED["x"]}, "y"),
    ],
    ids=["missing", "rank", "dtype", "size", "unknown"],
)
def test_arrays_that_the_runtime_refuses(fed: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(InputError, match="the runtime refused the input") as error:
        Session(DATA, Options()).run(["logits"], fed)
    assert words in error.value.what
    assert "\n" not in error.value.what


def test_a_node_that_fails() -> None:
    net = Net()
    net.op("Reshape", net.input("x", ["N"]), net.ints(-1, 7), out="y")
    session = Session(net.model({"y": None}).SerializeToString(), Options(session_options=quiet()))
    assert session.run(["y"], {"x": np.zeros(14, np.float32)})["y"].shape == (2, 7)
    with pytest.raises(ModelError, match="could not run the model") as error:
        session.run(["y"], {"x": np.zeros(5, np.float32)})
    assert "node_y" in error.value.what


def test_a_run_that_fails_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Trying other sizes may fail without any harm: what went wrong is in the error."""
    net = Net()
    net.op("Reshape", net.input("x", ["n"]), net.ints(7), out="y")
    session = Session(net.model({"y": [7]}).SerializeToString(), Options())
    with pytest.raises((InputError, ModelError), match=r"could not|refused"):
        session.run(["y"], {"x": np.zeros(5, np.float32)})
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_the_users_own_log_stays(capfd: pytest.CaptureFixture[str]) -> None:
    net = Net()
    net.op("Reshape", net.input("x", ["n"]), net.ints(7), out="y")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 2
    session = Session(net.model({"y": [7]}).SerializeToString(), Options(session_options=settings))
    with pytest.raises((InputError, ModelError)):
        session.run(["y"], {"x": np.zeros(5, np.float32)})
    assert "Reshape" in capfd.readouterr().err


def quiet() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def unknown_operator() -> bytes:
    proto = builders.plain()
    proto.graph.node[1].op_type = "Relux"
    return proto.SerializeToString()


@pytest.mark.parametrize(
    ("model", "words"),
    [(unknown_operator(), "Relux"), (DATA[:100], "protobuf"), (Path("nowhere.onnx"), "nowhere.onnx")],
    ids=["operator", "truncated", "missing"],
)
def test_a_model_that_the_runtime_cannot_load(model: Any, words: str) -> None:
    with pytest.raises(ModelError, match="the runtime cannot load the model") as error:
        Session(model, Options())
    assert words in error.value.what
    assert "inspect" in error.value.hint


def test_a_library_of_custom_operators_that_is_not_there() -> None:
    with pytest.raises(ModelError, match=r"nowhere\.so"):
        Session(DATA, Options(custom_ops=("/nowhere.so",)))


def test_the_users_session_options_are_used(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 1
    Session(DATA, Options(session_options=options))
    assert (tmp_path / "optimised.onnx").exists()
    assert options.log_severity_level == 1, "what the user set stays"


def test_cuda_from_a_build_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime"]})
    installed(monkeypatch, [CPU], [CPU])
    with pytest.raises(ProviderError, match="this ONNX Runtime has no CUDAExecutionProvider") as error:
        Session(DATA, Options(providers=("cuda",)))
    assert 'pip uninstall -y onnxruntime && pip install "onnx-gradcam[gpu]"' in error.value.hint


def test_two_distributions_that_own_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"onnxruntime": ["onnxruntime-gpu", "onnxruntime", "onnxruntime"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    expected = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu "
    installed(monkeypatch, [CPU], [CPU])
    with pytest.raises(ProviderError) as error:
        Session(DATA, Options(providers=("cuda",)))
    assert error.value.hint.startswith(expected)
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(ProviderError, match="installation is broken") as error:
        Session(DATA, Options())
    assert error.value.hint.startswith(expected)


# --------------------------------------------------------------------------------- no runtime, a broken one


def test_no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match="no ONNX Runtime is installed") as error:
        Session(DATA, Options())
    assert 'pip install "onnx-gradcam[cpu]"' in error.value.hint
    assert versions()["onnxruntime"] == "not installed"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ImportError('DLL load failed: msvcp140.dll')", "DLL load failed: msvcp140.dll"),
        ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
    ],
)
def test_a_runtime_that_cannot_be_imported(
    source: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "onnxruntime.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime"]})
    with pytest.raises(ProviderError, match="ONNX Runtime cannot be imported") as error:
        Session(DATA, Options())
    assert words in error.value.what
    assert error.value.hint == "pip install --force-reinstall onnxruntime"


def test_an_installation_without_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an uninstalled onnxruntime-gpu leaves of onnxruntime."""
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    monkeypatch.setattr(importlib.metadata, "packages_distributions", dict)
    with pytest.raises(ProviderError, match="installation is broken") as error:
        Session(DATA, Options())
    assert error.value.hint == "pip install --force-reinstall onnxruntime"


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    found = versions()
    assert list(found) == ["onnx-gradcam", "onnx", "onnx-ir", "numpy", "onnxruntime", "providers"]
    assert found["onnx"] == onnx.__version__
    assert found["onnxruntime"] == onnxruntime.__version__
    assert CPU in found["providers"]

    def nothing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    assert versions()["onnx-gradcam"] == "not installed"
