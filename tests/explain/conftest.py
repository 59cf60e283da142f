"""An explainer of the network whose derivatives are written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import naive_net
import pytest

import onnx_gradcam as ogc


@pytest.fixture(scope="module")
def explainer() -> Iterator[Any]:
    with ogc.Explainer(naive_net.model(naive_net.weights()), providers=["cpu"]) as explainer:
        yield explainer
