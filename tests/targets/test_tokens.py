"""Tokens of a sequence of scores, against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch: not installed")

from dense_nets import NETS  # noqa: E402
from exports import EXPORTERS, export  # noqa: E402

import onnx_gradcam as ogc  # noqa: E402


@pytest.fixture(scope="module")
def case() -> tuple[Any, Any, Any]:
    """A CTC head behind an LSTM: (T, N, K) log-probabilities."""
    torch.manual_seed(0)
    module = NETS["crnn"]().eval()
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return module, x, ogc.Explainer(export(module, x, EXPORTERS[0], dynamic_batch=False), providers=["cpu"])


@pytest.mark.parametrize(("tokens", "steps"), [([3], None), ([3, 1, 0], None), ([2, 2, 4], [7, 1, 5])])
def test_the_sum_of_their_log_probabilities(case: Any, tokens: list[int], steps: list[int] | None) -> None:
    module, x, explainer = case
    kept: list[Any] = []
    handles = [part.register_forward_hook(lambda _m, _x, y: kept.append(y)) for part in module.stem.modules()]
    log_p = module(x)[:, 0]
    for handle in handles:
        handle.remove()
    expected = sum(log_p[t, k] for t, k in zip(steps or range(len(tokens)), tokens, strict=True))
    found = explainer.explain(x.numpy(), target=ogc.Tokens(tokens, steps))
    assert float(found.score[0]) == pytest.approx(expected.item(), rel=1e-4)
    same = [a for a in kept if torch.is_tensor(a) and a.shape == found.activation.shape]
    nearest = min(same, key=lambda a: float((a.detach() - torch.tensor(found.activation)).abs().max()))
    (gradient,) = torch.autograd.grad(expected, nearest)
    np.testing.assert_allclose(found.gradient, gradient.numpy(), rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))
    assert (found.class_index == -1).all()
    assert (found.cell == -1).all()
    places = [f"{k}" if steps is None else f"{k}@{t}" for k, t in zip(tokens, steps or tokens, strict=True)]
    assert found.target(0) == "tokens:" + ",".join(places)


def test_one_class_of_a_sequence_is_its_most_probable_step(case: Any) -> None:
    module, x, explainer = case
    p = module(x)[:, 0].exp()
    found = explainer.explain(x.numpy(), target=ogc.Probability(3))
    assert float(found.score[0]) == pytest.approx(p[:, 3].max().item(), rel=1e-4)
    assert found.cell[0, 0] == int(p[:, 3].argmax())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (ogc.Tokens([]), "0 tokens"),
        (ogc.Tokens([1, 2], [3]), "2 tokens at the steps"),
        (ogc.Tokens([1, 2], [3, 3]), "2 tokens at the steps"),
        (ogc.Tokens([1], [-1]), "1 tokens at the steps"),
        (ogc.Tokens([1], [99]), "step 99 of a sequence of 8"),
        (ogc.Tokens([9]), "class 9 is out of range"),
        (ogc.Region(1), "a map of classes"),
        (ogc.Output(0), "a sequence of scores"),
    ],
)
def test_what_is_none(case: Any, target: Any, words: str) -> None:
    _, x, explainer = case
    with pytest.raises(ogc.TargetError, match=words) as error:
        explainer.explain(x.numpy(), target=target)
    assert error.value.hint
