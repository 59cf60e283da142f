from __future__ import annotations

import gc
import importlib.metadata
import json
import logging
import sys
import tempfile
import threading
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

import onnx_gradcam as ogc
from onnx_gradcam.engine import providers
from onnx_gradcam.engine import session as runtime
from onnx_gradcam.engine.session import CPU, CUDA, Options, Session, full_name, versions
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


# ----------------------------------------------------------------------------------------------- providers


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("cpu", CPU),
        ("CUDA", CUDA),
        ("CUDAExecutionProvider", CUDA),
        ("cudaexecutionprovider", CUDA),
        ("tensorrt", TENSORRT),
        ("directml", "DmlExecutionProvider"),
        ("AzureExecutionProvider", "AzureExecutionProvider"),
    ],
)
def test_full_name(given: str, full: str) -> None:
    assert full_name(given) == full


def test_every_short_name_stands_for_a_provider_that_exists() -> None:
    known = {p.casefold() for p in onnxruntime.get_all_providers()}
    assert [p for p in runtime.SHORT_NAMES.values() if p.casefold() not in known] in ([], ["ROCMExecutionProvider"])


@pytest.mark.parametrize(("given", "near"), [("cudo", "'cuda'"), ("openvion", "'openvino'")])
def test_an_unknown_provider_names_the_nearest(given: str, near: str) -> None:
    with pytest.raises(ProviderError, match=f"unknown execution provider '{given}'") as error:
        Session(DATA, Options(providers=(given,)))
    assert near in error.value.hint
    with pytest.raises(ProviderError, match=f"unknown execution provider '{given}'"):
        Session(DATA, Options(provider_options={given: {}}))


def test_a_named_provider_is_used() -> None:
    assert Session(DATA, Options(providers=("cpu",))).providers == (CPU,)


def test_a_provider_that_this_build_lacks() -> None:
    with pytest.raises(ProviderError, match="this ONNX Runtime has no QNNExecutionProvider") as error:
        Session(DATA, Options(providers=("cpu", "qnn")))
    assert onnxruntime.__version__ in error.value.where
    assert CPU in error.value.where
    assert "--provider cpu" in error.value.hint
    assert error.value.provider == "QNNExecutionProvider"


def test_an_empty_list_of_providers() -> None:
    with pytest.raises(ProviderError, match="no execution provider was named"):
        Session(DATA, Options(providers=()))


class Fake(types.ModuleType):
    """An onnxruntime of any build: what it has, what initialises, and what it was asked for."""

    __version__ = "9.9.9"

    def __init__(self, available: list[str], starts: list[str], problem: Exception | None = None) -> None:
        super().__init__("onnxruntime")
        self.available, self.starts, self.problem = available, starts, problem
        self.opened: list[tuple[list[str], list[dict[str, str]]]] = []

    def get_available_providers(self) -> list[str]:
        return self.available

    def get_all_providers(self) -> list[str]:
        return list(onnxruntime.get_all_providers())

    SessionOptions = types.SimpleNamespace

    def InferenceSession(self, payload: Any, **options: Any) -> Any:
        """Providers that do not start are dropped, as onnxruntime does; ``problem`` is raised for all but the CPU."""
        assert options["enable_fallback"] == 0, "onnxruntime falls back by itself, and prints that on stdout"
        names = options["providers"]
        self.opened.append((names, options["provider_options"]))
        if self.problem and names != [CPU]:
            raise self.problem
        session = types.SimpleNamespace(get_inputs=list, get_outputs=list)
        session.get_providers = lambda: [n for n in names if n in self.starts]
        session.get_provider_options = lambda: dict(zip(names, options["provider_options"], strict=True))
        return session


def installed(monkeypatch: pytest.MonkeyPatch, *args: Any) -> Fake:
    fake = Fake(*args)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    return fake


def test_cuda_is_the_default_where_it_initialises(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = installed(monkeypatch, [TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU])
    assert Session(DATA, Options()).providers == (CUDA, CPU)
    assert fake.opened == [([CUDA, CPU], [{"use_tf32": "0"}, {}])], "never TensorRT unasked; no TF32"


@pytest.mark.parametrize("problem", [None, RuntimeError("CUDA failure 100: no CUDA-capable device"), ValueError("no")])
def test_the_default_falls_back_silently(
    problem: Exception | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = installed(monkeypatch, [CUDA, CPU], [CPU], problem)
    assert Session(DATA, Options()).providers == (CPU,)
    assert fake.opened[-1] == ([CPU], [{}])
    assert capfd.readouterr() == ("", "")


def test_a_named_provider_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, [CUDA, CPU], [CPU])
    with pytest.raises(ProviderError, match="CUDAExecutionProvider did not initialise") as error:
        Session(DATA, Options(providers=("cuda", "cpu")))
    assert "onnxruntime 9.9.9 fell back to CPUExecutionProvider" in error.value.where
    installed(monkeypatch, [CUDA, CPU], [CPU], RuntimeError("libcudnn.so.9:\n cannot open"))
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider cannot be used: libcudnn\.so\.9: cannot open"):
        Session(DATA, Options(providers=("cuda",)))


def test_provider_options_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = installed(monkeypatch, [CUDA, CPU], [CUDA, CPU])
    given = {"cuda": {"use_tf32": "1", "device_id": "1"}, CPU: {"arena": "0"}}
    Session(DATA, Options(providers=("cuda", "cpu"), provider_options=given))
    assert fake.opened == [([CUDA, CPU], [{"use_tf32": "1", "device_id": "1"}, {"arena": "0"}])]
    Session(DATA, Options(providers=("cuda",), provider_options={"cuda": {"device_id": "1"}}))
    assert fake.opened[-1] == ([CUDA], [{"use_tf32": "0", "device_id": "1"}])


@pytest.mark.parametrize(
    ("name", "full", "option"),
    [
        ("cuda:1", CUDA, {"use_tf32": "0", "device_id": "1"}),
        ("CUDAExecutionProvider:2", CUDA, {"use_tf32": "0", "device_id": "2"}),
        ("tensorrt:0", TENSORRT, {"device_id": "0"}),
        ("openvino:GPU.1", "OpenVINOExecutionProvider", {"device_type": "GPU.1"}),
        ("directml:1", "DmlExecutionProvider", {"device_id": "1"}),
    ],
)
def test_a_device_behind_a_colon(name: str, full: str, option: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    fake = installed(monkeypatch, [full, CPU], [full, CPU])
    Session(DATA, Options(providers=(name,)))
    assert fake.opened == [([full], [option])]


def test_an_option_that_is_given_goes_before_the_device_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = installed(monkeypatch, [CUDA, CPU], [CUDA, CPU])
    Session(DATA, Options(providers=("cuda:1",), provider_options={"cuda": {"device_id": "0"}}))
    assert fake.opened[0][1] == [{"use_tf32": "0", "device_id": "0"}]


@pytest.mark.parametrize(
    ("name", "words"),
    [("cpu:1", "'cpu' has no devices to choose from"), ("cuda:first", "'first' in 'cuda:first' is no")],
)
def test_a_device_that_cannot_be_chosen(name: str, words: str) -> None:
    with pytest.raises(ProviderError, match=words) as error:
        Session(DATA, Options(providers=(name,)))
    assert "cuda" in error.value.hint


def test_libraries_from_pip_are_loaded_before_cuda_starts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = installed(monkeypatch, [CUDA, CPU], [CUDA, CPU])
    calls: list[int] = []
    fake.preload_dlls = lambda: [calls.append(len(fake.opened)), print("Failed to load libcudnn.so.9")]  # type: ignore[attr-defined]
    Session(DATA, Options(providers=("cpu",)))
    assert calls == []
    Session(DATA, Options(providers=("cuda",)))
    assert calls == [1], "before the session, which is the second"
    assert capfd.readouterr().out == ""


def test_what_another_thread_prints_meanwhile_is_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    fake = installed(monkeypatch, [CUDA, CPU], [CUDA, CPU])
    other = threading.Thread(target=sys.stdout.write, args=("a result\n",))
    fake.preload_dlls = lambda: (print("Failed to load libcudnn.so.9"), other.start(), other.join())  # type: ignore[attr-defined]
    with caplog.at_level(logging.DEBUG, "onnx_gradcam"):
        Session(DATA, Options(providers=("cuda",)))
    assert capfd.readouterr().out == "a result\n"
    assert caplog.messages == ["Failed to load libcudnn.so.9"]


def test_tf32_is_off_by_default_and_reported() -> None:
    assert runtime.in_tf32(Options(), [CUDA, CPU]) is False
    assert runtime.in_tf32(Options(provider_options={"cuda": {"use_tf32": "1"}}), [CUDA, CPU]) is True
    assert runtime.in_tf32(Options(), [CPU]) is None


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
