"""The table of relevance rules for one graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from onnx_gradcam.autodiff.guard import maker
from onnx_gradcam.autodiff.precision import narrowed, widened
from onnx_gradcam.autodiff.registry import PullBack, Refused, Rule, Rules
from onnx_gradcam.autodiff.relevance.flows import flow_rules
from onnx_gradcam.autodiff.relevance.layers import CONVOLUTION, KINDS, LinearLayer, LinearLayers, find_layers, layer_of
from onnx_gradcam.autodiff.relevance.linear import LAYER_RULES, OF_INPUT, Step, divisor
from onnx_gradcam.autodiff.relevance.settings import RelevanceSettings
from onnx_gradcam.graph.builder import Builder, Value
from onnx_gradcam.graph.ranges import range_of

FOLLOWING = frozenset(("BatchNormalization", "Add", "Sub", "Mul", "Div"))
"""Operators that may have been multiplied or added into a layer."""


def relevance_rules(settings: RelevanceSettings) -> Callable[[Sequence[ir.Node]], Rules]:
    """Return what makes the table of relevance rules for the nodes of a graph."""

    def table_for(nodes: Sequence[ir.Node]) -> Rules:
        layers, flows = find_layers(nodes), flow_rules()
        own = {key: _of_layers(flows[key], layers, settings) for key in flows if key[0] in KINDS and key[1] in (0, 1)}
        return flows | own | {key: _following(flows[key], layers) for key in flows if key[0] in FOLLOWING}

    return table_for


def relevance_of(op: Builder, g: Value, v: Value, settings: RelevanceSettings) -> Value:
    """Write the relevance of the input ``v``, whose cotangent is ``g``."""
    wide = widened(op, v)
    relevance = op.Mul(widened(op, g), divisor(op, wide) if settings.first in OF_INPUT else wide)
    return narrowed(op, relevance, like=g)


def _following(rule: Rule, layers: LinearLayers) -> Rule:
    """x̄ = g for what was multiplied or added into the layer before it: its rule takes the cotangent of the whole."""

    def function(op: Builder, g: Value, y: Value, *inputs: Value | None, **attributes: Any) -> Value:
        return g if maker(y) in layers.followers else rule.function(op, g, y, *inputs, **attributes)

    return replace(rule, function=function, broadcasts=True)


def _of_layers(rule: Rule, layers: LinearLayers, settings: RelevanceSettings) -> Rule:
    """Return the rule of an operator that multiplies with weights: ``rule`` where these are not constant."""

    def function(op: Builder, g: Value, y: Value, *inputs: Value, pull_back: PullBack, **attributes: Any) -> Value:
        node = maker(y)
        layer = None if node is None else layers.by_node.get(node) or layer_of(node)
        if layer is None:
            return rule.function(op, g, y, *inputs, **attributes)
        return _through_layer(op, g, layer, layers, settings, pull_back)

    parameters = [*rule.signature.parameters.values(), inspect.Parameter("pull_back", inspect.Parameter.KEYWORD_ONLY)]
    return replace(rule, function=function, nested=True, signature=rule.signature.replace(parameters=parameters))


def _through_layer(
    op: Builder, g: Value, layer: LinearLayer, layers: LinearLayers, settings: RelevanceSettings, pull_back: PullBack
) -> Value:
    """Write the cotangent of what a layer reads, given that of what it hands on."""
    x = layer.node.inputs[layer.position]
    assert x is not None
    name = settings.convolution if layer.kind == CONVOLUTION else settings.linear
    if settings.first and layers.is_first(x):
        name = settings.first
        if name in OF_INPUT and not layers.is_of_input(x):
            raise Refused(
                f"the rule {name!r} of the first layer, which reads more than the numbers of the input, is not"
            )
    step = Step(
        op,
        layer,
        widened(op, x),
        widened(op, g),
        widened(op, layer.outcome),
        pull_back,
        settings,
        range_of(x).low >= 0,
        layer.is_rectified,
    )
    return narrowed(op, LAYER_RULES[name](step), like=x)
