"""Providers are called by short names, start or fall back, and take options."""

from __future__ import annotations

import logging
import sys
import threading

import builders
import onnxruntime
import pytest
from nets import feeds
from runtimes import installed

from onnx_gradcam.engine import session as runtime
from onnx_gradcam.engine.session import CPU, CUDA, Options, Session, full_name
from onnx_gradcam.errors import ProviderError

PROTO = builders.plain()
DATA = PROTO.SerializeToString()
FED = feeds(PROTO)
TENSORRT = "TensorrtExecutionProvider"


# ----------------------------------------------------------------------------------------------- providers


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("cpu", CPU),
        ("CUDA", CUDA),
        ("gpu", CUDA),
        ("GPU:1", CUDA),
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
