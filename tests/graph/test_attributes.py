from __future__ import annotations

import dataclasses

import pytest

from onnx_gradcam.graph.attributes import Convolution, Pool, TransposedConvolution, keyword_arguments, signature_of


def convolution(x: int, *, at: Convolution, activation: str = "") -> tuple[object, ...]:
    return x, at, activation


def plain(x: int, *, axis: int = 0) -> tuple[object, ...]:
    return x, axis


def pool(x: int, *, at: Pool) -> tuple[object, ...]:
    return x, at


def test_what_the_function_does_not_take_itself_goes_into_the_record() -> None:
    given = {"group": 2, "activation": "Relu", "strides": (2, 2)}
    arguments = keyword_arguments(signature_of(convolution), given)
    assert arguments == {"at": Convolution(group=2, strides=(2, 2)), "activation": "Relu"}


def test_a_function_without_a_record_gets_its_attributes_as_they_are() -> None:
    assert keyword_arguments(signature_of(plain), {"axis": 1, "unknown": 2}) == {"axis": 1, "unknown": 2}


def test_a_record_refuses_what_it_has_no_field_for() -> None:
    with pytest.raises(TypeError, match=r"Convolution\.__init__\(\) got an unexpected keyword argument 'output_shape'"):
        keyword_arguments(signature_of(convolution), {"output_shape": (4, 4)})


def test_an_attribute_that_is_called_as_the_record_is_refused() -> None:
    with pytest.raises(TypeError, match="'at'"):
        keyword_arguments(signature_of(convolution), {"at": 1})


def test_a_record_refuses_to_lack_what_the_specification_requires() -> None:
    with pytest.raises(TypeError, match="'kernel_shape'"):
        keyword_arguments(signature_of(pool), {"strides": (2, 2)})


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TransposedConvolution().group = 2  # type: ignore[misc]
