"""verify passes what is right, names what is wrong (the errors are planted), and admits what it cannot tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nets import Net
from onnx import TensorProto
from planted import PLANTED, SMALL, failing, planted, scaled, small, status, unmasked
from quick import quick_first

from onnx_gradcam.autodiff.registry import RULES
from onnx_gradcam.errors import InputError, LayerError, UnsupportedGradient
from onnx_gradcam.explain import network as opened
from onnx_gradcam.graph.prepare.prepare import prepare
from onnx_gradcam.jobs.report import text
from onnx_gradcam.verify import Report, network, tangent, verify

# --- what is right ------------------------------------------------------------------------------------------


def test_weights_in_a_file_of_their_own_change_nothing(tmp_path: Path) -> None:
    """As torch's dynamo exporter writes them; rules hold views of the mapped file while sessions are opened."""
    path = tmp_path / "small.onnx"
    onnx.save(small(), path, save_as_external_data=True, location="small.onnx.data", size_threshold=0)
    inside, beside = verify(SMALL), verify(path)
    assert beside.ok
    assert [(check.name, check.error) for check in beside.checks] == [(c.name, c.error) for c in inside.checks]


@pytest.fixture(scope="module")
def right() -> Report:
    return verify(SMALL)


def test_the_right_rules_pass(right: Report) -> None:
    assert right.ok
    assert status(right) == {
        "forward pass": "pass",
        "node by node": "pass",
        "gradient at 'relu3'": "pass",
        "gradient at 'x'": "pass",
    }
    assert (right.score, right.layers, right.alike, right.notes) == ("logits", ("relu3",), 0, ())


def test_every_input_on_the_path_is_checked(right: Report) -> None:
    nodes = "stem relu1 pool wide relu2 pointwise sum sum relu3 pooled flat logits".split()
    assert [n.node for n in right.nodes] == [f"node_{name}" for name in nodes]
    assert [n.value for n in right.nodes if n.node == "node_sum"] == ["pointwise", "relu2"]


def test_rounding_stays_far_below_the_limit(right: Report) -> None:
    """So does the forward pass; what the planted errors leave far above it stands below."""
    assert all(n.error is not None and n.error < 1e-5 for n in right.nodes)
    assert right.checks[0].error is not None
    assert right.checks[0].error < 1e-6


def test_the_plateau_is_reported(right: Report) -> None:
    for found in right.checks[2:]:
        assert found.plateau is not None
        shortest, longest = found.plateau
        assert 0 < shortest * 2**4 <= longest <= 0.25
        assert found.error is not None
        assert found.error <= found.limit == 2e-3
        assert len(found.scans) == 3
        for scan in found.scans:
            assert list(scan.steps) == [scan.steps[0] / 2**k for k in range(10)]


def test_the_same_seed_gives_the_same_report(right: Report) -> None:
    assert verify(SMALL) == right
    assert verify(SMALL, seed=1) != right


# --- what is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", quick_first(PLANTED, 2))
def test_a_planted_error_is_caught_and_its_node_named(name: str) -> None:
    (op_type, wrt), wrong, nodes, (low, high), at_layer = PLANTED[name]
    report = verify(SMALL, table=planted(op_type, wrt, wrong))
    assert not report.ok
    assert failing(report) == nodes
    for node in report.nodes:
        if node.status == "fail":
            assert node.op_type == op_type
            assert node.error is not None
            assert low <= node.error <= high
            assert f"{op_type} {node.node!r}, input {node.input}" in text.verified(report)
        else:
            assert node.status == "pass"
    assert status(report) == {
        "forward pass": "pass",
        "node by node": "fail",
        "gradient at 'relu3'": "fail" if at_layer else "pass",
        "gradient at 'x'": "fail",
    }


def test_the_whole_network_measures_by_how_much(right: Report) -> None:
    """Independent of the check node by node: the gradient is too large by a tenth, here and there."""
    report = verify(SMALL, table=planted("GlobalAveragePool", 0, scaled(1.1)))
    for found in report.checks[2:]:
        assert found.error == pytest.approx(1 - 1 / 1.1, abs=2e-3)


def test_a_forward_pass_that_differs_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(model: Any) -> Any:
        prepared = prepare(model)
        weights = prepared.graph.initializers["w1"]
        weights.const_value = ir.tensor(weights.const_value.numpy() + 0.1)
        return prepared

    monkeypatch.setattr(opened, "prepare", spoiled)
    report = verify(SMALL)
    found = report.checks[0]
    assert (found.status, found.limit) == ("fail", 1e-4)
    assert found.error is not None
    assert found.error > 1e-2
    assert "probabilities" in found.message
    assert not report.ok


def test_an_output_of_another_shape_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(model: Any) -> Any:
        prepared = prepare(model)
        graph = prepared.graph
        graph.append(ir.node("Transpose", [graph.outputs[0]], {"perm": [1, 0]}, outputs=[ir.val("turned")]))
        graph.outputs[0].name, graph.node("node_probabilities").outputs[0].name = "before", "before"
        graph.outputs[0] = graph[-1].outputs[0]
        graph.outputs[0].name = "probabilities"
        return prepared

    monkeypatch.setattr(opened, "prepare", spoiled)
    found = verify(SMALL, score="logits").checks[0]
    assert (found.status, found.error) == ("fail", None)
    assert "another shape" in found.message


# --- what cannot be told ------------------------------------------------------------------------------------


def triangle_wave() -> onnx.ModelProto:
    """A triangle wave of period 2⁻¹⁶, folded out of | |x| − 2⁻ᵏ |: its slope is ±1, which no step in float32 shows."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    for k in range(-5, 18):
        x = net.op("Abs", net.op("Sub", x, net.array(np.float32(2.0**-k))))
    net.head(x, 4)
    return net.model({"logits": ["N", 5]})


def test_kinks_at_every_step_of_float32_are_decided_in_float64() -> None:
    report = verify(triangle_wave(), target_layer="relu")
    assert status(report) == {"forward pass": "pass", "node by node": "pass", "gradient at 'relu'": "pass",
                              "gradient at 'x'": "pass"}  # fmt: skip
    assert {scan.road for scan in report.checks[2].scans} == {"float64"}


def test_a_wrong_gradient_is_found_in_float64() -> None:
    report = verify(triangle_wave(), target_layer="relu", table=planted("GlobalAveragePool", 0, scaled(1.1)))
    assert status(report)["gradient at 'relu'"] == "fail"
    assert report.checks[2].error == pytest.approx(1 - 1 / 1.1, abs=1e-4)


def test_what_is_too_large_for_float64_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tangent, "SECONDS", -1)
    report = verify(triangle_wave(), target_layer="relu")
    assert status(report)["node by node"] == "pass"
    assert status(report)["gradient at 'relu'"] == "undecided"
    assert (report.status, report.ok) == ("undecided", False)
    found = report.checks[2]
    assert (found.error, found.plateau) == (None, None)
    for words in ("no plateau", "float64 takes longer", "--seed", "--layer"):
        assert words in found.message
    assert text.verified(report).endswith("nothing failed, but NOT everything could be decided")


def test_a_constant_score_is_undecided() -> None:
    """The mean over space of what InstanceNormalization makes is its bias, whatever the image."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    net.head(net.op("InstanceNormalization", x, net.random(4), net.random(4)), 4)
    report = verify(net.model({"logits": ["N", 5]}), target_layer="relu")
    assert status(report)["gradient at 'relu'"] == "undecided"
    assert "no move changes the score" in report.checks[2].message
    assert not report.ok


def test_a_score_of_zeros_is_undecided() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 4, 5, out="y")
    net.op("Mul", "y", net.array(np.float32(0)), out="logits")
    report = verify(net.model({"logits": ["N", 5]}))
    assert status(report)["gradient at 'relu'"] == "undecided"
    assert status(report)["node by node"] == "undecided"
    assert [n.node for n in report.nodes if n.status == "undecided"] == ["node_logits"]


def test_a_gradient_where_the_score_stands_still_fails() -> None:
    """Dead Relus: the score is constant, and a rule that forgets the mask claims a slope."""
    net = Net()
    x = net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4), out="conv")
    x = net.op("Relu", net.op("Sub", x, net.array(np.float32(1000))), out="relu")
    net.head(x, 4)
    model = net.model({"logits": ["N", 5]})
    assert status(verify(model, target_layer="conv"))["gradient at 'conv'"] == "undecided"
    report = verify(model, target_layer="conv", table=planted("Relu", 0, unmasked))
    assert status(report)["gradient at 'conv'"] == "fail"
    assert failing(report) == {("node_relu", 0)}


def saturated() -> onnx.ModelProto:
    """A gate whose Sigmoid is at 1 to the last bit."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    pooled = net.op("GlobalAveragePool", x)
    gate = net.op("Sigmoid", net.op("Add", pooled, net.array(np.float32(40))), out="gate")
    net.head(net.op("Mul", x, gate), 4)
    return net.model({"logits": ["N", 5]})


def test_a_saturated_node_is_checked_at_other_inputs() -> None:
    report = verify(saturated(), target_layer="relu")
    (gate,) = [n for n in report.nodes if n.op_type == "Sigmoid"]
    assert gate.status == "pass"
    assert "standard normal" in gate.message
    assert report.ok
    report = verify(saturated(), target_layer="relu", table=planted("Sigmoid", 0, scaled(1.1)))
    assert failing(report) == {("node_gate", 0)}


def test_the_users_input_is_taken() -> None:
    x = np.random.default_rng(5).standard_normal((3, 3, 16, 16)).astype(np.float32)
    given, first = verify(SMALL, x=x), verify(SMALL, x={"x": x[:1]})
    assert given.ok
    assert given == first


def test_a_flat_image_is_decided() -> None:
    """Everything is a tie: MaxPool over equal values, all of the image."""
    assert verify(SMALL, x=np.zeros((1, 3, 16, 16), np.float32)).ok


def test_an_input_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        verify(SMALL, x=np.zeros((1, 3, 15, 16), np.float32))


def test_a_fixed_batch_is_filled() -> None:
    report = verify(small(batch=4))
    assert report.ok
    assert len(report.class_index) == 4
    assert verify(small(batch=4), x=np.ones((1, 3, 16, 16), np.float32)).class_index == (report.class_index[0],) * 4


def test_an_open_size_is_found_by_trying() -> None:
    """The head fits 32×32 only, which the model does not declare."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, "H", "W"]), (3, 4), stride=2), out="relu")
    net.linear(net.op("Flatten", x), 4 * 16 * 16, 5, out="logits")
    assert verify(net.model({"logits": ["N", 5]})).ok


def test_no_size_that_fits_is_an_error() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, "H", "W"]), (3, 4)), out="relu")
    net.linear(net.op("Flatten", x), 4 * 21 * 21, 5, out="logits")
    with pytest.raises(InputError) as caught:
        verify(net.model({"logits": ["N", 5]}))
    assert "x=" in str(caught.value)


def test_other_inputs_are_fed() -> None:
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["N", 3, 8, 8]), (3, 4)), out="relu")
    net.op("Mul", net.head(x, 4, out="y"), net.input("scale", ["N", 1]), out="logits")
    assert verify(net.model({"logits": ["N", 5]})).ok


def test_without_a_path_to_the_image_the_layer_is_checked() -> None:
    """Bytes in: the path ends at the Cast, and a note says so."""
    net = Net()
    x = net.op("Cast", net.input("x", ["N", 3, 8, 8], np.uint8), to=TensorProto.FLOAT)
    x = net.op("Relu", net.conv(x, (3, 4)), out="relu")
    net.head(x, 4)
    report = verify(net.model({"logits": ["N", 5]}))
    assert report.ok
    assert list(status(report)) == ["forward pass", "node by node", "gradient at 'relu'"]
    assert [n.node for n in report.nodes] == ["node_pooled", "node_flat", "node_logits"]
    assert "before the target layer" in report.notes[0]
    assert report.notes[0] in text.verified(report)


def test_several_layers() -> None:
    report = verify(SMALL, target_layer=["relu1", "relu2", "relu1"])
    assert report.ok
    assert report.layers == ("relu1", "relu2")
    assert list(status(report))[2:] == [f"gradient at {name!r}" for name in ("relu1", "relu2", "x")]


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(LayerError, match="relu9"):
        verify(SMALL, target_layer="relu9")


def test_a_missing_rule_after_the_layer_is_an_error() -> None:
    table = {key: rule for key, rule in RULES.items() if key[0] != "Gemm"}
    with pytest.raises(UnsupportedGradient, match="Gemm"):
        verify(SMALL, table=table)


def test_like_nodes_stand_for_each_other() -> None:
    net = Net()
    x = net.input("x", ["N", 3, 8, 8])
    for k in range(6):
        x = net.op("Relu", net.conv(x, (3, 3)), out=f"relu{k}")
    net.head(x, 3)
    report = verify(net.model({"logits": ["N", 5]}))
    assert report.alike == 6
    assert [n.node for n in report.nodes if n.op_type == "Relu"] == ["node_relu0", "node_relu2", "node_relu5"]
    assert "which stand for 6 more" in text.verified(report)


# --- the report ---------------------------------------------------------------------------------------------


def test_the_report_as_text(right: Report) -> None:
    lines = text.verified(right).splitlines()
    assert lines[0] == (
        f"the model given in memory: score 'logits', class {right.class_index[0]}, on CPUExecutionProvider"
    )
    assert [line.split()[0] for line in lines[1:5]] == ["pass"] * 4
    assert all("limit" in line for line in lines[1:5])
    assert "steps" in lines[3]
    assert lines[5].startswith("  time ")
    assert lines[6:] == ["everything passed"]


def test_the_report_as_json(right: Report) -> None:
    found = json.loads(json.dumps(right.as_dict(), allow_nan=False))
    assert found["ok"] is True
    assert [c["name"] for c in found["checks"]] == list(status(right))
    assert found["checks"][3]["scans"][0].keys() == {"steps", "errors", "plateau", "error", "road"}
    assert found["checks"][3]["plateau"] == list(right.checks[3].plateau or ())
    assert found["nodes"][0]["op_type"] == "Conv"


# --- the plateau --------------------------------------------------------------------------------------------

STEPS = np.array([2.0**-k for k in range(4, 14)])


def test_a_kink_fades_with_the_step() -> None:
    """An error of the order of the step: the line through it ends at the true slope."""
    start, stop, error = network.plateau(STEPS, 0.5 * STEPS, 10) or (0, 0, 1.0)
    assert (stop, error) == (10, pytest.approx(0, abs=1e-12))
    assert stop - start >= 5


def test_an_error_that_stays_is_measured() -> None:
    found = network.plateau(STEPS, 0.5 * STEPS - 0.0909, 10)
    assert found is not None
    assert found[2] == pytest.approx(0.0909, abs=1e-9)


def test_noise_is_no_plateau() -> None:
    noise = np.random.default_rng(0).standard_normal(10)
    assert network.plateau(STEPS, 0.05 * noise, 10) is None


def test_steps_that_rounding_drowns_do_not_count() -> None:
    errors = np.where(STEPS < 2.0**-9, 1.0, 0.5 * STEPS)
    found = network.plateau(STEPS, errors, 6)
    assert found is not None
    assert found[2] == pytest.approx(0, abs=1e-12)
    assert network.plateau(STEPS, errors, 10) is None
    assert network.plateau(STEPS, errors, 4) is None


def test_a_plateau_of_long_steps_is_not_believed() -> None:
    """Where shorter steps are legible and disagree, longer ones that agree have straddled a kink."""
    errors = np.array([0.2] * 6 + [0.15, 0.1, 0.04, 0.01])
    assert network.plateau(STEPS, errors, 10) is None
