"""An explainer of the network whose maps are computed by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from two_channels import model

import onnx_gradcam as ogc


@pytest.fixture
def explainer() -> Iterator[ogc.Explainer]:
    with ogc.Explainer(model(), target_layer="cells", labels=["star", "heart", "moon"]) as made:
        yield made
