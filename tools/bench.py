"""What explaining costs, as a ratio against plain inference of the untouched model in the same process.

    python tools/bench.py [--models resnet50 vgg16 mobilenet_v2] [--batches 1 8] [--rounds 30] [--json FILE]
                          [--methods gradcam saliency guided-backprop …] [--copies occlusion rise …]
                          [--clock wall|processor]

Methods that run changed copies of the input (``--copies``) are compared with plain inference of as many images, in
batches of the size in which copies are run. Each model runs in a process of its own. Contenders take turns, round by
round; medians are printed. Threads do not spin, so that idle sessions cost nothing. The processor's time tells ratios
where other work runs on the machine, too.
Needs torch (for the modules); pytorch-grad-cam is measured where installed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from onnx_gradcam.copies.scores import COPIES_AT_ONCE
from onnx_gradcam.methods.perturbation.table import INPUT_METHODS, TAIL_METHODS
from onnx_gradcam.methods.table import NAMES

WARM_UP = 3
METHODS = ["gradcam", "saliency", "guided-backprop", "lrp", "deeplift", *TAIL_METHODS]
COPIES = 64
FEW: dict[str, dict[str, int]] = {"occlusion": {"window": 48, "stride": 24}}
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "vgg16", "mobilenet_v2"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=NAMES)
    parser.add_argument("--copies", nargs="*", default=["occlusion", "rise"], choices=INPUT_METHODS)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {"machine": machine(), "models": {}}
    print(json.dumps(results["machine"], indent=2, allow_nan=False))
    context = multiprocessing.get_context("spawn")
    for name in options.models:
        with context.Pool(1) as pool:
            how = options.batches, options.rounds, options.methods, options.copies, options.clock
            found = pool.apply(measure, (name, *how))
        results["models"][name] = found
        report(name, found)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", "utf-8")


def machine() -> dict[str, Any]:
    from onnx_gradcam.engine.session import versions

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": multiprocessing.cpu_count(),
        **versions(),
    }


def report(name: str, found: dict[str, Any]) -> None:
    print(f"\n{name}: build {found['build_s']:.2f} s, peak memory {found['peak_mib']:.0f} MiB")
    for batch, times in found["batches"].items():
        plain = times["plain inference"]
        print(f"  batch {batch}")
        for what, seconds in times.items():
            print(f"    {what:28} {1e3 * seconds:9.2f} ms  {seconds / plain:6.3f} x")
    for what, (seconds, plain, count) in found["copies"].items():
        rate = f"{plain / seconds:.3f} of the rate of plain inference in batches of {COPIES_AT_ONCE}"
        print(f"  {what}, {count} copies {1e3 * seconds:9.2f} ms: {rate}")


def measure(
    name: str, batches: list[int], rounds: int, methods: Sequence[str], copies: Sequence[str], clock: str
) -> dict[str, Any]:
    import onnxruntime as ort
    import torch
    from architectures import ARCHITECTURES

    import onnx_gradcam as ogc

    torch.set_grad_enabled(True)
    module = ARCHITECTURES[name]().eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        export(module, path)
        session_options = ort.SessionOptions()
        session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        start = time.perf_counter()
        explainer = ogc.Explainer(str(path), providers=["cpu"], session_options=session_options, check_forward=False)
        explainer.warm_up()
        build = time.perf_counter() - start
        plain = ort.InferenceSession(str(path), session_options, providers=["CPUExecutionProvider"])
        rewritten = ogc.gradient_model(str(path), [explainer.image_input.name])
        saliency = ort.InferenceSession(
            rewritten.SerializeToString(), session_options, providers=["CPUExecutionProvider"]
        )
        found: dict[str, Any] = {"build_s": build, "batches": {}}
        for batch in batches:
            x = np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(np.float32)
            contenders: dict[str, Callable[[], Any]] = {
                "plain inference": runner(plain, x),
                **{method: partial(explainer.explain, x, method=method) for method in methods},
                "input gradient, as it is": input_gradient(saliency, x, explainer.image_input.name),
                **torch_contenders(module, x),
            }
            if "gradcam" in methods:
                contenders["gradcam, top 5"] = partial(explainer.explain, x, target=ogc.TopK(5))
            found["batches"][batch] = take_turns(contenders, rounds, CLOCKS[clock])
        found["copies"] = {
            method: measure_copies(explainer, plain, method, max(3, rounds // 6), CLOCKS[clock]) for method in copies
        }
        found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def measure_copies(
    explainer: Any, session: Any, method: str, rounds: int, now: Callable[[], float]
) -> tuple[float, float, int]:
    """Median seconds of a method on one image, and of plain inference of as many images as it runs; how many these are.

    The method is asked for about ``COPIES`` copies.
    """
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    options = FEW.get(method, {"samples": COPIES})
    told: list[int] = []
    explainer.explain(x, method=method, progress=lambda done, total: told.append(done), **options)
    count = told[-1] + 1  # and the image itself
    batches = [x.repeat(min(COPIES_AT_ONCE, count - k), axis=0) for k in range(0, count, COPIES_AT_ONCE)]
    name = session.get_inputs()[0].name

    def run() -> None:
        for batch in batches:
            session.run(None, {name: batch})

    times = take_turns({"plain": run, "method": partial(explainer.explain, x, method=method, **options)}, rounds, now)
    return times["method"], times["plain"], count


def export(module: Any, path: Path) -> None:
    import torch

    x = torch.zeros(1, 3, 224, 224)
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(
        module, (x,), str(path), dynamo=False, opset_version=18,
        input_names=["image"], output_names=["logits"], dynamic_axes=axes,
    )  # fmt: skip


def runner(session: Any, x: np.ndarray) -> Callable[[], Any]:
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})


def input_gradient(session: Any, x: np.ndarray, name: str) -> Callable[[], Any]:
    top1 = np.full(len(x), -1, np.int64)
    return lambda: session.run([f"grad/{name}"], {name: x, "target_index": top1})


def torch_contenders(module: Any, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """pytorch-grad-cam on the same weights, where it is installed."""
    try:
        stub_torchvision()
        from pytorch_grad_cam import GradCAM
    except ImportError:
        return {}
    import torch

    cam = GradCAM(module, [module.get_submodule(module.last_stage)])
    tensor = torch.from_numpy(x)
    return {"pytorch-grad-cam": lambda: cam(input_tensor=tensor, targets=None)}


def stub_torchvision() -> None:
    """pytorch-grad-cam imports torchvision for helpers that are not used here."""
    names = {"torchvision": [], "torchvision.transforms": ["Compose", "Normalize", "ToTensor"]}
    names["torchvision.transforms.functional"] = ["resize"]
    for name, attributes in names.items():
        module = sys.modules.setdefault(name, types.ModuleType(name))
        for attribute in attributes:
            setattr(module, attribute, None)


def take_turns(
    contenders: dict[str, Callable[[], Any]], rounds: int, now: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each, by the clock ``now``; every round runs each once, in rotating order."""
    for run in contenders.values():
        for _ in range(WARM_UP):
            run()
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            start = now()
            contenders[name]()
            times[name].append(now() - start)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
