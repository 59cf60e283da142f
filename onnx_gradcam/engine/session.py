"""Run ONNX models. The only file that imports onnxruntime, and it does so when a session is opened."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import shutil
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_gradcam.engine.providers import CPU as CPU
from onnx_gradcam.engine.providers import CUDA as CUDA
from onnx_gradcam.engine.providers import DEFAULTS, MEMORY, SHORT_NAMES, TENSORRT, device_options, known_name
from onnx_gradcam.errors import InputError, ModelError, ProviderError, nearest, reinstall

log = logging.getLogger("onnx_gradcam")
PLAIN = frozenset(f"tensor({name})" for name in "float double float16 int8 int16 int32 int64 uint8 bool".split())
QUIET, SILENT = 3, 4  # of onnxruntime's log: errors only, and what ends the process only
IN_MEMORY_LIMIT = 1_900_000_000  # bytes of weights; protobuf ends at 2 GiB


@dataclass(frozen=True)
class Options:
    """How sessions are opened.

    Attributes:
        providers: short or full names in order, ``cuda:1`` with a device; None for CUDA if it initialises, else CPU.
        provider_options: options of providers, by provider name.
        session_options: an ``onnxruntime.SessionOptions``.
        custom_ops: paths of shared libraries with custom operators.
        check_forward: whether the first run is compared with the untouched model.
    """

    providers: Sequence[str] | None = None
    provider_options: Mapping[str, Mapping[str, str]] | None = None
    session_options: Any = None
    custom_ops: Sequence[str] = ()
    check_forward: bool = True


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
        self._device = _device(self._session)
        self._run_options = _run_options(ort, options)
        self.warnings: tuple[str, ...] = ()  # what the user should know of the runs so far

    @property
    def providers(self) -> tuple[str, ...]:
        """Return the execution providers in use, by full name."""
        return tuple(self._session.get_providers())

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Evaluate the outputs ``names``.

        Raises ``InputError`` where the runtime refuses the arrays, ``ModelError`` where a node fails.
        """
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        try:
            results = self._run(list(names), dict(feeds))
        except (state.InvalidArgument, ValueError) as error:
            raise InputError(f"the runtime refused the input: {_one_line(error)}") from None
        except (state.Fail, state.RuntimeException, state.NotImplemented, state.EPFail) as error:
            raise ModelError(f"the runtime could not run the model: {_one_line(error)}") from None
        return dict(zip(names, results, strict=True))

    def _run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[Any]:
        """Return the results; on a GPU each input is moved there once, before the run, and each result back once.

        Where that fails, the run is repeated with the arrays in the host's memory: this tells what is wrong with them,
        or gives the results. In the latter case later runs go this way, too, and ``warnings`` says so.
        """
        failure = ""
        if self._device is not None:
            try:
                return self._run_bound(names, feeds, self._device)
            except RuntimeError as error:  # of whatever kind: onnxruntime raises no other for what cannot be bound
                failure = _one_line(error)
        results: list[Any] = self._session.run(names, feeds, self._run_options)
        if failure:
            self._device = None
            self.warnings = (
                f"{self.providers[0]} could not run on arrays in the device's memory ({failure}): they stay in the "
                "host's memory, and the runtime copies them in every run",
            )
        return results

    def _run_bound(self, names: list[str], feeds: dict[str, np.ndarray], device: tuple[str, int]) -> list[Any]:
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *device))
        for name in names:
            binding.bind_output(name, *device)
        self._session.run_with_iobinding(binding, self._run_options)
        found: list[Any] = binding.copy_outputs_to_cpu()
        return found

    def _serialize(self, model: ir.Model) -> str | bytes:
        size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
        if size < IN_MEMORY_LIMIT:
            data: bytes = ir.to_proto(model).SerializeToString()
            return data
        folder = tempfile.mkdtemp(prefix="onnx-gradcam-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.data")
        return str(path)


def _run_options(ort: ModuleType, options: Options) -> Any:
    """Return options by which a failing run is not printed, too: its error is raised. A user's own log stays."""
    run_options = ort.RunOptions()
    if options.session_options is None or options.session_options.log_severity_level == QUIET:
        run_options.log_severity_level = SILENT
    return run_options


def unoptimised(options: Options) -> Options:
    """Return the same options without the runtime's graph optimisations."""
    ort = _onnxruntime()
    session_options = ort.SessionOptions()
    session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session_options.log_severity_level = QUIET
    return replace(options, session_options=session_options)


def session_options(threads: int) -> Any:
    """Return an ``onnxruntime.SessionOptions`` with which ``threads`` threads compute one operator.

    Raises:
        ProviderError: no runtime is installed.
    """
    options = _onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = QUIET
    return options


def single_threaded(options: Options) -> Options:
    """Return the same options with one thread for each session, unless there are session options already.

    Closing a session waits for its threads: for one node that takes ten times as long as running it.
    """
    if options.session_options is not None:
        return options
    return replace(options, session_options=session_options(1))


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


def _device(session: Any) -> tuple[str, int] | None:
    """Return the memory that the first provider works in, and which of several devices; None where a run is not bound.

    Sequences, strings and bfloat16 cannot be bound from arrays.
    """
    used = session.get_providers()
    if not used or used[0] not in MEMORY:
        return None
    if not all(v.type in PLAIN for v in [*session.get_inputs(), *session.get_outputs()]):
        return None
    return MEMORY[used[0]], int(session.get_provider_options()[used[0]].get("device_id", 0))


def full_name(provider: str) -> str:
    """Return the full name of a provider, ``CUDAExecutionProvider`` for ``cuda``, ``cuda:1`` and itself.

    Raises ``ProviderError`` for a name that is neither.
    """
    known = known_name(provider)
    if known is not None:
        return known
    if provider in _onnxruntime().get_all_providers():
        return provider
    raise ProviderError(
        f"unknown execution provider {provider!r}",
        hint=f"one of {nearest(provider, SHORT_NAMES)}",
        provider=provider,
    )


def check_providers(providers: Sequence[str] | None) -> None:
    """Check that the installed runtime has providers, without opening a session; None is right with any runtime.

    Raises:
        ProviderError: a name is unknown, the runtime does not have the provider, or no runtime is installed.
    """
    ort = _onnxruntime()
    available = ort.get_available_providers()
    for name in map(full_name, providers or ()):
        if name not in available:
            raise ProviderError(
                f"this ONNX Runtime has no {name}",
                where=f"onnxruntime {ort.__version__}: {', '.join(available)}",
                hint=_way_to(name),
                provider=name,
            )


def _open(ort: ModuleType, payload: str | bytes, options: Options) -> Any:
    provider_settings(options)
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
    check_providers(names)
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

    settings = [provider_settings(options)[name] for name in names]
    if not {CUDA, TENSORRT}.isdisjoint(names):
        _preload(ort)
    session_options = options.session_options or ort.SessionOptions()
    if options.session_options is None:
        session_options.log_severity_level = QUIET
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


def provider_settings(options: Options) -> dict[str, dict[str, str]]:
    """Return the options of each provider: our defaults, the device in its name, and what is given, in this order.

    Raises ``ProviderError`` for unknown providers and devices.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict, {name: dict(given) for name, given in DEFAULTS.items()})
    for provider in options.providers or ():
        found[full_name(provider)] |= device_options(provider)
    for provider, given in (options.provider_options or {}).items():
        found[full_name(provider)] |= given
    return found


def in_tf32(options: Options, providers: Sequence[str]) -> bool | None:
    """Tell whether CUDA, if it is the first in use, may round float32 products to TF32; None for other providers."""
    if not providers or providers[0] != CUDA:
        return None
    return str(provider_settings(options)[CUDA]["use_tf32"]) != "0"


def _preload(ort: ModuleType) -> None:
    """Load the libraries of CUDA and cuDNN that pip packages bring, torch's among them.

    What is missing the provider itself tells. onnxruntime prints it, too, on stdout, where a program's results stand:
    a copy of its function whose ``print`` is our log is called.
    """
    preload = getattr(ort, "preload_dlls", None)  # since 1.21
    if preload is not None:
        known = {**preload.__globals__, "print": log.debug}
        quiet = FunctionType(preload.__code__, known, None, preload.__defaults__, preload.__closure__)
        quiet.__kwdefaults__ = preload.__kwdefaults__
        quiet()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:600]


def versions() -> dict[str, str]:
    """Return the versions of the tool, onnx and the runtime, and the providers that the runtime was built with."""
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
