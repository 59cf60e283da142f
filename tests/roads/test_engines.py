"""What the engines take: a model in any form, or one that is open already."""

from __future__ import annotations

import builders
import onnx
import pytest

import onnx_gradcam as ogc
from onnx_gradcam.explain import network as opened


def test_a_network_that_is_open_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = builders.plain()
    plain, of_score = ogc.gradient_model(proto, ["relu", "x"]), ogc.gradient_model(proto, ["relu"], score="flat")
    networks = ogc.Network(proto), ogc.Network(proto, score="flat")
    monkeypatch.delattr(opened, "load")
    assert ogc.gradient_model(networks[0], ["relu", "x"]) == plain
    assert ogc.gradient_model(networks[0], ["relu", "x"]) == plain
    assert ogc.gradient_model(networks[1], ["relu"]) == of_score
    assert [v.name for v in plain.graph.output] != [v.name for v in of_score.graph.output]


def test_the_input_that_is_explained_must_exist() -> None:
    with pytest.raises(ogc.InputError, match="no input 'image'"):
        ogc.gradient_model(builders.plain(), ["relu"], image_input="image")


def test_an_open_network_keeps_its_score() -> None:
    with pytest.raises(ogc.InputError, match="open already: score cannot be changed"):
        ogc.gradient_model(ogc.Network(builders.plain()), ["relu"], score="flat")


def test_a_model_is_left_as_it_was() -> None:
    proto = builders.plain()
    before = onnx.ModelProto.FromString(proto.SerializeToString())
    ogc.gradient_model(proto, ["relu"])
    assert proto == before
