"""The tables of methods and metrics of other tools: ours in them exist, and every row says something."""

from __future__ import annotations

from collections import Counter

import peers
import pytest


def test_what_is_called_ours_is_in_our_tables() -> None:
    assert peers.unknown_counterparts() == []


def test_a_renamed_method_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    held = peers.data()
    held["methods"]["method gradcamm"] = {"captum": ["LayerGradCam"]}
    monkeypatch.setattr(peers, "data", lambda: held)
    assert peers.unknown_counterparts() == ["method gradcamm"]


@pytest.mark.parametrize("peer", peers.PEERS)
def test_a_name_is_listed_once_or_stands_for_several(peer: str) -> None:
    several = {name for name, count in Counter(peers.listed(peer)).items() if count > 1}
    assert several <= {"DeletionInsertionMetric", "InsertionDeletionAUC", "ClassificationMetric", "NoiseTunnel"}


@pytest.mark.parametrize("part", ["methods", "metrics"])
def test_every_row_names_a_tool_and_every_gap_a_reason(part: str) -> None:
    held = peers.data()
    for row in [*held[part].values(), *held["without"][part]]:
        assert row.keys() - {"why"} <= set(peers.PEERS)
        assert all(row[peer] for peer in row)
    assert all(len(row["why"]) > 20 for row in held["without"][part])
