"""A training that was stopped ends with the same weights as one that was not."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch: not installed")
train_bias = import_module("train_bias")


@pytest.mark.slow
def test_a_training_goes_on_from_its_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_bias, "EPOCHS", 2)
    monkeypatch.setattr(train_bias, "TRAINING_SCENES", 64)
    saved: list[Path] = []
    save = torch.save

    def keeping(state: Any, path: Path) -> None:
        save(state, path)
        saved.append(tmp_path / f"{len(saved)}.pt")
        shutil.copy(path, saved[-1])

    monkeypatch.setattr(torch, "save", keeping)
    whole = train_bias.train("shapes-biased", tmp_path / "whole.pt").state_dict()
    assert len(saved) == 2
    resumed = train_bias.train("shapes-biased", saved[0]).state_dict()
    assert len(saved) == 3
    for name, values in whole.items():
        assert torch.equal(values, resumed[name]), name
    other = train_bias.train("shapes-debiased", tmp_path / "other.pt").state_dict()
    assert any(not torch.equal(values, other[name]) for name, values in whole.items())
