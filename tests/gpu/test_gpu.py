"""On a GPU: `make test-gpu`. Not run where there is none: each test is skipped, with the reason."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.engine.session import CUDA, Options, Session
from onnx_gradcam.errors import ProviderError

pytestmark = pytest.mark.gpu

DEMOS = ("shapes-resnet", "shapes-vgg", "shapes-inception")
BATCHES, SETTLED = 200, 20
GROWTH = 8  # MiB, between the batches SETTLED and BATCHES


@pytest.fixture(scope="module", autouse=True)
def cuda(models: Path) -> None:
    """Skips where CUDA does not start."""
    try:
        Session(models / "shapes-resnet.onnx", Options(providers=("cuda",)))
    except ProviderError as error:
        pytest.skip(f"gpu: {error.what}")


def smi(query: str) -> list[str]:
    """What nvidia-smi says of each GPU."""
    if shutil.which("nvidia-smi") is None:
        pytest.skip("gpu: there is no nvidia-smi")
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def images(count: int, size: int = 96) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, size, size), np.float32)


def close(found: np.ndarray, expected: np.ndarray, limit: float) -> None:
    """Relative in L2."""
    wide = expected.astype(np.float64)
    assert np.linalg.norm(found - wide) <= limit * np.linalg.norm(wide)


# --- parity with the CPU -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEMOS)
@pytest.mark.parametrize("method", ["gradcam", "layercam", "guided-backprop"])
def test_float32_without_tf32_gives_what_the_cpu_gives(name: str, method: str, models: Path) -> None:
    x, found = images(4), {}
    for provider in ("cpu", "cuda"):
        with ogc.Explainer(models / f"{name}.onnx", providers=[provider]) as explainer:
            found[provider] = explainer.explain(x, method=method)
    assert found["cuda"].provenance.providers[0] == CUDA
    assert found["cuda"].provenance.precision == {"dtype": "float32", "tf32": False}
    close(found["cuda"].heatmap, found["cpu"].heatmap, 1e-4)
    if method != "guided-backprop":
        close(found["cuda"].gradient, found["cpu"].gradient, 1e-4)


def architectures() -> list[str]:
    """The small exports, where torch is there to make them."""
    try:
        from architectures import SMALL
    except ImportError:
        return []
    return list(SMALL)


@pytest.mark.parametrize("name", architectures())
def test_every_architecture_gives_what_the_cpu_gives(name: str) -> None:
    from exports import small, small_model

    data, x = small_model(name, "torchscript"), images(2, small(name).size)
    ours, theirs = (ogc.Explainer(data, providers=[p]).explain(x) for p in ("cpu", "cuda"))
    close(theirs.gradient, ours.gradient, 1e-4)
    close(theirs.heatmap, ours.heatmap, 1e-4)


@pytest.mark.parametrize("name", DEMOS)
def test_float16_maps_are_those_of_float32(name: str, models: Path) -> None:
    from placement import in_float16

    path, x = models / f"{name}.onnx", images(4)
    single = ogc.Explainer(path, providers=["cpu"]).explain(x)
    half = ogc.Explainer(in_float16(onnx.load(path)), providers=["cuda"])
    found = half.explain(x.astype(half.image_input.dtype), target=[int(c) for c in single.class_index])
    assert found.provenance.precision["dtype"] == "float16"
    close(found.heatmap, single.heatmap, 5e-2)


# --- where it runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*DEMOS, *architectures()])
def test_no_added_node_falls_back_to_the_cpu(name: str, models: Path) -> None:
    from placement import ADDED, CPU, OPTIMISED, gradient_graph, of_sizes, place

    if name in DEMOS:
        proto = onnx.load(models / f"{name}.onnx")
    else:
        from exports import small_model

        proto = onnx.load_from_string(small_model(name, "torchscript"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "gradient.onnx")
        onnx.save(gradient_graph(proto), path)
        placed = place(str(path))
        sizes = of_sizes(onnx.load(f"{path}{OPTIMISED}").graph)
    on_cpu = [op for op, node in placed.get(CPU, []) if node.startswith(ADDED) and node not in sizes]
    assert on_cpu == []


def test_inputs_and_results_are_bound_to_the_device(models: Path) -> None:
    session = Session(models / "shapes-resnet.onnx", Options(providers=("cuda",)))
    assert session._device == ("cuda", 0)


def test_memory_stays_flat(models: Path) -> None:
    x = images(8)
    used: dict[int, int] = {}
    with ogc.Explainer(models / "shapes-resnet.onnx", providers=["cuda"]) as explainer:
        for k in range(1, BATCHES + 1):
            explainer.explain(x, target=k % 6)
            if k in (SETTLED, BATCHES):
                used[k] = int(smi("memory.used")[0])
    assert used[BATCHES] - used[SETTLED] <= GROWTH


def test_a_second_gpu_by_its_number(models: Path) -> None:
    if len(smi("index")) < 2:
        pytest.skip("gpu: there is one only")
    x, path = images(2), models / "shapes-resnet.onnx"
    first, second = (ogc.Explainer(path, providers=[p]).explain(x) for p in ("cuda:0", "cuda:1"))
    assert second.provenance.provider_options[CUDA]["device_id"] == "1"
    close(second.heatmap, first.heatmap, 1e-5)


def test_tensorrt_where_this_build_has_it(models: Path) -> None:
    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        pytest.skip("gpu: this onnxruntime has no TensorRT")
    x, path = images(2), models / "shapes-resnet.onnx"
    try:
        found = ogc.Explainer(path, providers=["tensorrt", "cuda"]).explain(x)
    except ProviderError as error:
        pytest.skip(f"gpu: {error.what}")
    close(found.heatmap, ogc.Explainer(path, providers=["cpu"]).explain(x).heatmap, 1e-2)
