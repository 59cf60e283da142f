"""What explaining costs on a GPU: one command, `make bench-gpu`.

    python tools/bench_gpu.py [--models resnet50 vgg16] [--batches 1 8 64] [--rounds 20] [--device 0] [--json FILE]

Plain inference, Grad-CAM and guided backpropagation by onnxruntime's CUDA provider, float32 without TF32, and
pytorch-grad-cam on the same card where it is installed: milliseconds, images per second, and the ratio to plain
inference. Contenders take turns, round by round; medians are printed. Everything includes the way of a batch to the
card and of the results back.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench import export, machine, runner, stub_torchvision, take_turns


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "vgg16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    refused = unusable(f"cuda:{options.device}")
    if refused:
        print(f"not run: {refused}", file=sys.stderr)
        return 2
    results: dict[str, Any] = {"machine": machine() | card(options.device), "models": {}}
    print(json.dumps(results["machine"], indent=2, allow_nan=False))
    context = multiprocessing.get_context("spawn")
    for name in options.models:
        with context.Pool(1) as pool:
            found = pool.apply(measure, (name, options.batches, options.rounds, options.device))
        results["models"][name] = found
        report(name, found)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", "utf-8")
    return 0


def unusable(provider: str) -> str:
    """Why the provider cannot be had; empty where it can."""
    from onnx_gradcam.engine.session import Options, Session
    from onnx_gradcam.errors import ProviderError

    demo = Path(__file__).resolve().parent.parent / "models" / "shapes-resnet.onnx"
    try:
        Session(demo, Options(providers=(provider,)))
    except ProviderError as error:
        return error.what
    return ""


def card(device: int) -> dict[str, str]:
    """The name of the GPU, as torch has it."""
    import torch

    return {"gpu": torch.cuda.get_device_name(device) if torch.cuda.is_available() else "unknown: torch sees none"}


def report(name: str, found: dict[str, dict[str, float]]) -> None:
    print(f"\n{name}")
    for batch, times in found.items():
        plain = times["plain inference"]
        print(f"  batch {batch}")
        for what, seconds in times.items():
            rate = int(batch) / seconds
            print(f"    {what:20} {1e3 * seconds:9.2f} ms  {rate:9.1f} images/s  {seconds / plain:6.3f} x")


def measure(name: str, batches: list[int], rounds: int, device: int) -> dict[str, dict[str, float]]:
    """Batch → contender → seconds."""
    from architectures import ARCHITECTURES

    import onnx_gradcam as ogc

    module = ARCHITECTURES[name]().eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        export(module, path)
        explainer = ogc.Explainer(str(path), providers=[f"cuda:{device}"], check_forward=False)
        plain = plain_session(path, device)
        found = {}
        for batch in batches:
            x = np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(np.float32)
            contenders: dict[str, Callable[[], Any]] = {
                "plain inference": runner(plain, x),
                "Grad-CAM": partial(explainer.explain, x),
                "guided backprop": partial(explainer.explain, x, method="guided-backprop"),
                **torch_contenders(module, x, device),
            }
            found[str(batch)] = take_turns(contenders, rounds)
    return found


def plain_session(path: Path, device: int) -> Any:
    """The untouched model with the same options, without this package."""
    import onnxruntime as ort

    settings = {"device_id": str(device), "use_tf32": "0"}
    return ort.InferenceSession(str(path), providers=[("CUDAExecutionProvider", settings)])


def torch_contenders(module: Any, x: np.ndarray, device: int) -> dict[str, Callable[[], Any]]:
    """pytorch-grad-cam and torch's inference on the same weights and card."""
    import torch

    if not torch.cuda.is_available():
        return {}
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    there = module.to(f"cuda:{device}")

    def infer() -> Any:
        with torch.no_grad():
            return there(torch.from_numpy(x).to(f"cuda:{device}")).cpu()

    found: dict[str, Callable[[], Any]] = {"torch inference": infer}
    try:
        stub_torchvision()
        from pytorch_grad_cam import GradCAM
    except ImportError:
        return found
    cam = GradCAM(there, [there.get_submodule(there.last_stage)])
    return {**found, "pytorch-grad-cam": lambda: cam(torch.from_numpy(x).to(f"cuda:{device}"), targets=None)}


if __name__ == "__main__":
    sys.exit(main())
