"""Run ONNX models. The only file that imports onnxruntime, and it does so when a session is opened."""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.errors import InputError, ModelError, ProviderError, nearest
from onnx_gradcam.installation import reinstall

SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
CPU, CUDA = SHORT_NAMES["cpu"], SHORT_NAMES["cuda"]
DEFAULTS: dict[str, dict[str, str]] = {CUDA: {"use_tf32": "0"}}  # the gradient's precision is float32's own
IN_MEMORY_LIMIT = 1_900_000_000  # bytes of weights; protobuf ends at 2 GiB


@dataclass(frozen=True)
class Options:
    """How sessions are opened.

    ``providers``: short or full names in order, None for CUDA if it initialises, else CPU. ``provider_options``: by
    provider name. ``session_options``: an ``onnxruntime.SessionOptions``. ``custom_ops``: shared libraries.
    """

    providers: tuple[str, ...] | None = None
    provider_options: Mapping[str, Mapping[str, str]] | None = None
    session_options: Any = None
    custom_ops: tuple[str, ...] = ()


class Session:
    """A warm onnxruntime session: arrays by name in, arrays by name out."""

    def __init__(self, model: ir.Model | Path | bytes, options: Options) -> None:
        ort = _onnxruntime()
        payload: str | bytes
        if isinstance(model, ir.Model):
            payload = self._serialize(model)
        else:
            payload = str(model) if isinstance(model, Path) else model
        self._session = _open(ort, payload, options)
        self.inputs = {i.name: i for i in self._session.get_inputs()}
        self.outputs = tuple(o.name for o in self._session.get_outputs())

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, by full name."""
        return tuple(self._session.get_providers())

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Evaluate the outputs ``names``.

        Raises ``InputError`` where the runtime refuses the arrays, ``ModelError`` where a node fails.
        """
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        try:
            results = self._session.run(list(names), dict(feeds))
        except (state.InvalidArgument, ValueError) as error:
            raise InputError(f"the runtime refused the input: {_one_line(error)}") from None
        except (state.Fail, state.RuntimeException, state.NotImplemented, state.EPFail) as error:
            raise ModelError(f"the runtime could not run the model: {_one_line(error)}") from None
        return dict(zip(names, results, strict=True))

    def _serialize(self, model: ir.Model) -> str | bytes:
        size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
        if size < IN_MEMORY_LIMIT:
            data: bytes = ir.to_proto(_in_memory(model)).SerializeToString()
            return data
        folder = tempfile.mkdtemp(prefix="onnx-gradcam-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.data")
        return str(path)


def unoptimised(options: Options) -> Options:
    """The same, without the runtime's graph optimisations."""
    ort = _onnxruntime()
    session_options = ort.SessionOptions()
    session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session_options.log_severity_level = 3
    return replace(options, session_options=session_options)


def _in_memory(model: ir.Model) -> ir.Model:
    ir.external_data.load_to_model(model)
    return model


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name in (None, "onnxruntime")
        raise ProviderError(
            "no ONNX Runtime is installed" if missing else f"ONNX Runtime cannot be imported: {_one_line(error)}",
            hint='pip install "onnx-gradcam[cpu]", or "onnx-gradcam[gpu]" for CUDA'
            if missing
            else reinstall("onnxruntime"),
        ) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise ProviderError("the ONNX Runtime installation is broken", hint=reinstall("onnxruntime"))
    found: ModuleType = onnxruntime
    return found


def full_name(provider: str) -> str:
    """``cuda`` or ``CUDAExecutionProvider`` → ``CUDAExecutionProvider``.

    Raises ``ProviderError`` for a name that is neither.
    """
    known = {**SHORT_NAMES, **{full.casefold(): full for full in SHORT_NAMES.values()}}
    if provider.casefold() in known:
        return known[provider.casefold()]
    if provider in _onnxruntime().get_all_providers():
        return provider
    raise ProviderError(
        f"unknown execution provider {provider!r}",
        hint=f"one of {nearest(provider, SHORT_NAMES)}",
        provider=provider,
    )


def _open(ort: ModuleType, payload: str | bytes, options: Options) -> Any:
    if options.providers is not None:
        return _open_named(ort, payload, options, [full_name(p) for p in options.providers])
    if CUDA in ort.get_available_providers():
        try:
            session = _create(ort, payload, options, [CUDA, CPU])
        except ProviderError:
            return _create(ort, payload, options, [CPU])
        if CUDA in session.get_providers():
            return session
    return _create(ort, payload, options, [CPU])


def _open_named(ort: ModuleType, payload: str | bytes, options: Options, names: list[str]) -> Any:
    if not names:
        raise ProviderError("no execution provider was named", hint='providers=["cpu"], or None for the default')
    available = ort.get_available_providers()
    for name in names:
        if name not in available:
            raise ProviderError(
                f"this ONNX Runtime has no {name}",
                where=f"onnxruntime {ort.__version__}: {', '.join(available)}",
                hint=_way_to(name),
                provider=name,
            )
    session = _create(ort, payload, options, names)
    missing = [name for name in names if name not in session.get_providers()]
    if missing:
        raise ProviderError(
            f"{missing[0]} did not initialise (its libraries are missing or do not fit)",
            where=f"onnxruntime {ort.__version__} fell back to {', '.join(session.get_providers())}",
            hint="ONNX Runtime's log above names the library; or --provider cpu",
            provider=missing[0],
        )
    return session


def _way_to(provider: str) -> str:
    owners = set(importlib.metadata.packages_distributions().get("onnxruntime", []))
    if len(owners) > 1:
        return reinstall("onnxruntime")
    if provider == CUDA:
        return 'pip uninstall -y onnxruntime && pip install "onnx-gradcam[gpu]"; or --provider cpu'
    return "an onnxruntime build with this provider; or --provider cpu"


def _create(ort: ModuleType, payload: str | bytes, options: Options, names: list[str]) -> Any:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    given = {full_name(k): dict(v) for k, v in (options.provider_options or {}).items()}
    settings = [DEFAULTS.get(name, {}) | given.get(name, {}) for name in names]
    session_options = options.session_options or ort.SessionOptions()
    if options.session_options is None:
        session_options.log_severity_level = 3
    try:
        for library in options.custom_ops:
            session_options.register_custom_ops_library(library)
        return ort.InferenceSession(
            payload,
            sess_options=session_options,
            providers=names,
            provider_options=settings,
            enable_fallback=0,  # to the CPU, which onnxruntime announces on stdout
        )
    except (RuntimeError, ValueError) as error:
        raise ProviderError(
            f"{names[0]} cannot be used: {_one_line(error)}",
            where=f"onnxruntime {ort.__version__}, provider options {settings}",
            hint="other provider options, or --provider cpu",
            provider=names[0],
        ) from None
    except (
        state.InvalidProtobuf,
        state.InvalidGraph,
        state.InvalidArgument,
        state.Fail,
        state.RuntimeException,
        state.NotImplemented,
        state.NoSuchFile,
    ) as error:
        raise ModelError(
            f"the runtime cannot load the model: {_one_line(error)}",
            hint="a model that onnxruntime itself runs; `onnx-gradcam inspect MODEL` names its operators",
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:600]


def versions() -> dict[str, str]:
    """Versions of the tool, onnx and the runtime, and the providers that the runtime was built with."""
    found = {name: _version(name) for name in ("onnx-gradcam", "onnx", "onnx-ir", "numpy")}
    try:
        ort = _onnxruntime()
    except ProviderError:
        return found | {"onnxruntime": "not installed", "providers": ""}
    return found | {"onnxruntime": ort.__version__, "providers": ", ".join(ort.get_available_providers())}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
