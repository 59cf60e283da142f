from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from measured import SECTION
from paper.attacked import attack_scenes
from paper.measuring import PROBABILITIES, with_probabilities
from paper.page import SECTIONS
from paper.pieces import CLASSIFIERS, MODELS, all_pieces, layer_names
from repository import ROOT
from scenes import draw_many, one_object, write_scenes

import onnx_gradcam as ogc
from onnx_gradcam.jobs.data.reading import read_data

MODEL = MODELS / "scenes-resnet.onnx"


def mean(value: float) -> dict[str, float | int]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 7, "clusters": 7}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_has_a_line_for_each_piece_with_chance_and_random_weights(section: str) -> None:
    pieces = [piece for piece in all_pieces() if piece.section == section]
    assert pieces
    measured = []
    for piece in pieces:
        each = {"map": mean(0.61), "chance": mean(0.42), "random_weights": mean(0.33), "ceiling": mean(0.2)}
        metrics = dict.fromkeys(piece.metrics, each)
        measured.append((piece, {"metrics": metrics, "accuracy": 0.9, "epsilon": 8, "flipped": 0.95}))
    head, _, *lines = SECTIONS[section](measured).splitlines()
    assert len(lines) == len(pieces)
    assert {line.count("|") for line in lines} == {head.count("|")}
    for piece, line in zip(pieces, lines, strict=True):
        assert line.startswith(f"| {piece.model} |")
        assert "0.61 [0.51, 0.71]" in line
        assert "| 7 |" in line
        assert section == "randomisation" or "| 7 | 0.42 | 0.33 |" in line  # this check compares with random weights


def test_the_page_has_the_sections_with_a_line_for_each_piece() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text("utf-8")
    sections = dict(SECTION.findall(page))
    for name in SECTIONS:
        models = [line.split("|")[1].strip() for line in sections[name].splitlines() if line.startswith("| scenes-")]
        assert models == [piece.model for piece in all_pieces() if piece.section == name]


def test_layers_go_from_shallow_to_deep_and_end_with_the_default() -> None:
    with ogc.Explainer(MODEL, providers=["cpu"]) as explainer:
        assert layer_names("scenes-resnet")[-1:] == explainer.target_layers
    assert {piece.model for piece in all_pieces()} == set(CLASSIFIERS)
    assert len({*all_pieces()}) == len(all_pieces())


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    model = with_probabilities(MODEL)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(2, 3, 128, 128)).astype(np.float32)
    logits, probabilities = session.run(["logits", PROBABILITIES], {"image": x})
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)


def test_attacked_scenes_stand_in_a_table_with_the_same_objects(tmp_path: Path) -> None:
    table = write_scenes(tmp_path, draw_many(one_object, 4, 3))
    attacked = attack_scenes(table, MODEL)
    before, after = read_data(table), read_data(attacked.table)
    assert [(s.label, s.boxes, s.mask) for s in before] == [(s.label, s.boxes, s.mask) for s in after]
    assert 0 < attacked.epsilon <= 32
    evaluation = ogc.evaluate(MODEL, attacked.table, ["pointing"], providers=["cpu"])
    clean = ogc.evaluate(MODEL, table, ["pointing"], providers=["cpu"])
    assert clean.accuracy is not None
    assert evaluation.accuracy is not None
    assert evaluation.accuracy <= clean.accuracy * (1 - attacked.flipped) + 1e-6
