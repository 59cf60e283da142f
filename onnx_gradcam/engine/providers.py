"""Execution providers by name, short or full, with a device behind a colon: ``cuda``, ``cuda:1``, ``openvino:GPU``."""

from __future__ import annotations

from onnx_gradcam.errors import ProviderError

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
ALIASES = {"gpu": "cuda"}  # what users write for a provider that is called otherwise
CPU, CUDA, TENSORRT = SHORT_NAMES["cpu"], SHORT_NAMES["cuda"], SHORT_NAMES["tensorrt"]
DEFAULTS: dict[str, dict[str, str]] = {CUDA: {"use_tf32": "0"}}  # the gradient's precision is float32's own
DEVICES = {  # the provider option that chooses the device
    **{SHORT_NAMES[name]: "device_id" for name in ("cuda", "tensorrt", "rocm", "migraphx", "directml")},
    SHORT_NAMES["openvino"]: "device_type",
}
MEMORY = {CUDA: "cuda", TENSORRT: "cuda"}  # where a run's inputs are put and its outputs left, by IOBinding


def known_name(provider: str) -> str | None:
    """Return the full name of a provider in ``SHORT_NAMES``, of either form and in any case; None for another.

    "gpu" is CUDA.
    """
    name = provider.partition(":")[0].casefold()
    name = ALIASES.get(name, name)
    return SHORT_NAMES.get(name) or {full.casefold(): full for full in SHORT_NAMES.values()}.get(name)


def device_options(provider: str) -> dict[str, str]:
    """Return the provider option that the device behind a colon stands for; none without a colon.

    Raises ``ProviderError`` for a device of a provider that has no such option, and for one that is no number where it
    has to be.
    """
    name, colon, device = provider.partition(":")
    if not colon:
        return {}
    option = DEVICES.get(known_name(provider) or "")
    if option is None:
        raise ProviderError(
            f"{name!r} has no devices to choose from, as {provider!r} does",
            hint=f"{name!r}; a device can follow {', '.join(s for s, full in SHORT_NAMES.items() if full in DEVICES)}",
            provider=provider,
        )
    if option == "device_id" and not device.isdecimal():
        raise ProviderError(
            f"{device!r} in {provider!r} is no number of a device", hint=f"'{name}:0', '{name}:1' …", provider=provider
        )
    return {option: device}
