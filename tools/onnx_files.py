"""Writes a torch network as one ONNX file: opset 18, weights inside, what its users must know in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch


def save_onnx(
    network: Any, path: Path, inputs: Mapping[str, torch.Tensor], output: str, metadata: Mapping[str, Any]
) -> None:
    """Write a network of one output that takes any batch size.

    ``inputs`` are examples of two rows by name; each entry of ``metadata`` becomes the property onnx_gradcam.<key>, as
    JSON.
    """
    program = torch.onnx.export(
        network,
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=[output],
        dynamic_shapes=tuple({0: "batch"} for _ in inputs),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    model = program.model
    for node in model.graph:  # the exporter's notes hold source paths
        node.metadata_props.clear()
    for value in ir.convenience.create_value_mapping(model.graph).values():
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    for key, value in metadata.items():
        model.metadata_props[f"onnx_gradcam.{key}"] = json.dumps(value, allow_nan=False)
    model.graph.name = path.stem
    onnx.save(ir.to_proto(model), path)
