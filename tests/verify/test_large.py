"""Along an input of a million elements one random direction finds what several find along a small one."""

from __future__ import annotations

import pytest
from planted import PLANTED, SMALL, failing, planted

from onnx_gradcam.verify import check, nodes, verify


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", PLANTED)
def test_one_direction_finds_what_is_planted_in_a_large_network(
    name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "LARGE", 0)
    monkeypatch.setattr(check, "_gradients", lambda *_: [])
    (op_type, wrt), wrong, expected, (low, high), _ = PLANTED[name]
    report = verify(SMALL, table=planted(op_type, wrt, wrong), seed=seed)
    assert failing(report) == expected
    if low > 1.5 or high < 0.2:  # a factor
        assert all(low <= (n.error or 0) <= high for n in report.nodes if n.status == "fail")
