"""Results as lines and tables for readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx_gradcam.jobs import cuda_kernels
from onnx_gradcam.jobs.attack.files import AttackedFile, AttackReport
from onnx_gradcam.jobs.attack.result import OWN_NUMBERS
from onnx_gradcam.jobs.compare.comparison import MEASURES, STATISTICS, Comparison
from onnx_gradcam.jobs.compare.pairs import Pair, Side
from onnx_gradcam.jobs.compare.requirements import Finding
from onnx_gradcam.jobs.evaluate import EvaluationResult, MetricPart, MetricResult
from onnx_gradcam.jobs.explain import ExplainedRow, Outcome
from onnx_gradcam.jobs.failures import FailureReport
from onnx_gradcam.jobs.inspect import HeadInfo, LayerInfo, Operator, Overview
from onnx_gradcam.jobs.presets import Ranking
from onnx_gradcam.jobs.repeat import Repeat
from onnx_gradcam.jobs.video import VideoOutcome
from onnx_gradcam.metrics.interval import Mean
from onnx_gradcam.verify import Check, NodeCheck, Report
from onnx_gradcam.verify.report import VERDICTS

ROADS = {"differences": "by differences", "float64": "in float64", "line": "along a line"}
NODES_SHOWN = 20
LAYERS_SHOWN = 12

# --- explain ----------------------------------------------------------------------------------------------------


def explained_row(row: ExplainedRow) -> str:
    """Return image, label, probability, cell, box and file in one line."""
    product = f" = {row.made_of}" if row.made_of else ""
    probability = "" if row.probability != row.probability else f"  {row.probability:.3f}{product}"
    cell = "" if row.cell is None else f"  cell {','.join(map(str, row.cell))}"
    box = "" if row.box is None else f"  box {','.join(f'{v:.0f}' for v in row.box)}"
    return f"{row.image}  {row.label}{probability}{cell}{box}  {row.path}"


def explained(outcome: Outcome) -> str:
    """Return the pages of the contact sheet; each row has been printed."""
    return "\n".join(f"contact sheet  {path}" for path in outcome.sheets)


def explained_heads(outcomes: Mapping[str, Outcome], kind: str = "heads") -> str:
    """Return the pages of the contact sheets; each row has been printed."""
    return "\n".join(filter(None, map(explained, outcomes.values())))


def explained_video(outcome: VideoOutcome) -> str:
    """Return the number of frames, their rate and latency, and the file in one line."""
    latency = f"latency {outcome.latency(0.5):.1f} ms (95 %: {outcome.latency(0.95):.1f} ms)"
    rate = f"{outcome.rate:.1f} frames/s"
    return f"{outcome.source}  {len(outcome.frames)} frames  {rate}  {latency}  {outcome.written}"


def repeated(rows: Sequence[Repeat]) -> str:
    """Return one line for each map: whether it is the same."""
    return "\n".join(
        f"{row.npy}  {'same' if row.same else 'DIFFERS'}  {row.note or f'largest difference {row.difference:.2g}'}"
        for row in rows
    )


# --- compare ----------------------------------------------------------------------------------------------------


def compared_pair(pair: Pair) -> str:
    """Return image, label and how alike its two maps are, in one line."""
    top1 = "" if pair.top1_a == pair.top1_b else f"  top-1 {pair.top1_a} against {pair.top1_b}"
    values = (
        "  not compared"
        if pair.pearson is None
        else f"  pearson {pair.pearson:.4f}  iou {pair.iou:.4f}  distance {pair.distance:.4f}"
    )
    pixels = "" if pair.distance_px is None else f" ({pair.distance_px:.1f} px)"
    return f"{pair.image}  {pair.label}{values}{pixels}{top1}{f'  ({pair.note})' if pair.note else ''}"


def compared(comparison: Comparison, written: Path | None = None) -> str:
    """Return both sides, a table of the statistics, the judged requirements, and where it is written."""
    count = len(comparison.pairs)
    lines = [f"{name}  {_side(side)}" for name, side in (("A", comparison.a), ("B", comparison.b))]
    same = sum(pair.top1_a == pair.top1_b for pair in comparison.pairs)
    if comparison.agreement is not None:
        lines.append(f"top-1 agreement {comparison.agreement:.4f} ({same} of {count})")
    lines.append(_cells("", STATISTICS))
    for metric in MEASURES:
        lines.append(_cells(metric, [_number(comparison.measure(metric, s)) for s in STATISTICS]))
    blank = sum(pair.pearson is None for pair in comparison.pairs)
    lines += [f"{blank} of {count} images: both maps are blank, not compared"] if blank else []
    lines += map(finding, comparison.findings)
    return "\n".join([*lines, *([f"written {written}"] if written else [])])


def finding(judged: Finding) -> str:
    """Return a requirement, whether it is met, and what was measured."""
    measured = "nothing could be measured" if judged.value is None else f"measured {judged.value:.4g}"
    return f"{judged.clause}: {'met' if judged.ok else 'NOT met'}, {measured}"


def _side(side: Side) -> str:
    places = {"layer": " + ".join(side.layers), "input": side.attributed}
    shown = ", ".join(f"{kind} {name}" for kind, name in places.items() if name)
    return f"{side.model} on {side.providers[0]}: score {side.score!r}, {shown}"


def _cells(name: str, cells: Sequence[str]) -> str:
    return (f"{name:10}" + "".join(f"{cell:>9}" for cell in cells)).rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


# --- evaluate ---------------------------------------------------------------------------------------------------


def evaluated(evaluation: EvaluationResult, written: Path) -> str:
    """Return a table: of each metric the mean of the maps with its interval, chance and random weights beside it."""
    place = " + ".join(evaluation.layers) or "the input"
    right = "" if evaluation.accuracy is None else f", the true class first in {evaluation.accuracy:.3f}"
    lines = [f"{evaluation.model}: {evaluation.method} of {place}, {len(evaluation.rows)} maps{right}"]
    lines.append(f"{'':26}{'map':>8}  {'95 %':17}{'n':>9}{'chance':>9}{'random':>9}{'ceiling':>9}  better")
    for result in evaluation.metrics:
        lines += [_metric(result), *map(_metric_part, result.parts)]
    return "\n".join([*lines, *(f"warning: {line}" for line in evaluation.warnings), f"written {written}"])


def _metric(result: MetricResult) -> str:
    return (
        f"{_figures(result.name, result.map, (result.chance, result.random_weights, result.ceiling))}  {result.better}"
    )


def _metric_part(part: MetricPart) -> str:
    name = ", ".join(filter(None, (part.label, part.group)))
    return _figures(f"  {name}", part.map, (part.chance, part.random_weights))


def _figures(name: str, own: Mean, others: Sequence[Mean | None]) -> str:
    interval = "" if own.low is None or own.high is None else f"[{own.low:.3f}, {own.high:.3f}]"
    count = str(own.n) if own.clusters == own.n else f"{own.n} in {own.clusters}"
    beside = "".join(f"{_mean(mean):>9}" for mean in others)
    return f"{name:26}{_mean(own):>8}  {interval:17}{count:>9}{beside}"


def _mean(mean: Mean | None) -> str:
    return "-" if mean is None or mean.value is None else f"{mean.value:.3f}"


# --- attack -----------------------------------------------------------------------------------------------------


def attacked_file(attacked: AttackedFile) -> str:
    """Return the class before and after, each with its probability, and by how much the image was changed."""
    row = attacked.result.as_dict()["rows"][0]
    first, last = (f"{row[key]['label']} {row[f'probability_{key}']:.3f}" for key in ("before", "after"))
    right = "" if row["right_before"] else f"  (wrong before: {row['true']['label']})"
    unit = "" if attacked.result.unit == OWN_NUMBERS else f" {attacked.result.unit}"
    verdict = "changed" if row["success"] else "not changed"
    return f"{attacked.image}  {first} → {last}  {verdict} by {row['used']:.4g}{unit}{right}"


def attacked(report: AttackReport, written: Path) -> str:
    """Return how many of the images that were right changed their class, and which file was written."""
    right, changed = report.counts
    unit = "" if (first := report.attacked[0].result).unit == OWN_NUMBERS else f" {first.unit}"
    how = f"{first.method}, {first.norm} ≤ {first.epsilon:g}{unit}"
    which = "images" if report.request["true"] is None else "images that were right before"
    return f"{how}: {changed} of {right} {which} changed their class\nwritten {written}"


# --- failures ---------------------------------------------------------------------------------------------------


def failed(report: FailureReport, written: Path) -> str:
    """Return a line for each explained mistake, and how many there are."""
    lines = [
        f"{each.image}  {each.predicted_label} {each.predicted_probability:.3f}, and it is {each.true_label} "
        f"{each.true_probability:.3f}"
        for each in report.explained
    ]
    return "\n".join([*lines, str(report), f"written {written}"])


# --- inspect ----------------------------------------------------------------------------------------------------


def inspected(overview: Overview, ranking: Ranking | None) -> str:
    """Return sections on inputs, outputs, score, layers, operators and preprocessing."""
    imports = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in overview.opset.items())
    labels = f"{overview.labels or 'no'} labels in the model"
    sections = {
        "model": [f"{overview.model}  ({imports})"],
        "inputs": list(map(str, overview.inputs)),
        "outputs": list(map(str, overview.outputs)),
        "score": [f"{overview.score or '-'}  {overview.score_note}; {labels}"],
        "heads (* is explained)": list(map(_head, overview.heads)),
        "targets": [overview.targets] if overview.targets else [],
        "the last values before the outputs (--score NAME takes one)": [
            f"{v.name}  ({', '.join(map(str, v.shape))})  {v.op_type}" for v in overview.values
        ],
        "candidate target layers (* is taken by default)": _layers(overview.layers),
        "method (of the default)": [f"{overview.method}  {overview.method_note}"] if overview.method else [],
        "operators": list(map(_operator, overview.operators)),
        f"no CUDA kernel in onnxruntime {cuda_kernels.version()}": list(overview.without_kernel),
        "preprocessing": [f"{name:14} {value}" for name, value in overview.preprocess.items()],
        "warnings": list(overview.warnings),
    }
    lines = [line for title, rows in sections.items() if rows for line in [title, *(f"  {row}" for row in rows)]]
    return "\n".join([*lines, *([] if ranking is None else _ranking(ranking))])


def _ranking(ranking: Ranking) -> list[str]:
    if not ranking.results:
        return ["preprocessing on this photo", "  the model gives no probabilities by which it could be told"]
    heading = f"  {'':27} {'p':>6} {'mirrored':>9} {'pieces':>7} {'margin':>7}  top-1"
    rows = [
        f"  {'auto (the model says so)' if r.declared else r.preset:27} {r.probability:6.3f} {r.mirrored:9.3f} "
        f"{r.scrambled:7.3f} {r.margin:7.3f}  {r.label}"
        for r in ranking.results
    ]
    doubt = [] if ranking.stands_out else ["  none stands out: another photo, or what the model was trained with"]
    return [
        "preprocessing on this photo (surer of it and of its mirror image than of its pieces)",
        heading,
        *rows,
        *doubt,
        "to copy",
        f"  {ranking.line}",
    ]


def _head(head: HeadInfo) -> str:
    outputs = ", ".join(head.outputs)
    return f"{'*' if head.chosen else ' '} {outputs}  {head.kind} ({head.count}): {head.reason}"


def _layers(layers: Sequence[LayerInfo]) -> list[str]:
    rows = [
        f"{'*' if x.chosen else ' '} {x.name}  ({', '.join(map(str, x.shape))})  {x.op_type}"
        f"{f' of {x.module}' if x.module else ''}: {x.reason}"
        for x in layers[:LAYERS_SHOWN]
    ]
    hidden = len(layers) - LAYERS_SHOWN
    return [*rows, f"  and {hidden} more, further up: --json lists them all"] if hidden > 0 else rows


def _operator(operator: Operator) -> str:
    domain = f"{operator.domain}::" if operator.domain else ""
    return f"{operator.count:4} {domain + operator.op_type:24} {operator.status}"


# --- verify -----------------------------------------------------------------------------------------------------


def verified(report: Report) -> str:
    """Return a table of the checks, then the nodes that did not pass, then what was not checked."""
    width = max(len(check.name) for check in report.checks)
    classes = ", ".join(map(str, report.class_index))
    lines = [f"{report.model}: score {report.score!r}, class {classes}, on {report.providers[0]}"]
    lines += [_check(check, width) for check in report.checks]
    named = sorted((n for n in report.nodes if n.status != "pass"), key=lambda n: n.status != "fail")
    lines += [_node(node) for node in named[:NODES_SHOWN]]
    hidden = len(named) - NODES_SHOWN
    lines += [f"  ...        and {hidden} more inputs of nodes"] if hidden > 0 else []
    lines += [f"  note       {note}" for note in report.notes]
    runs = f"as {report.timing.inferences:,.0f} runs of the network ({report.timing.inference:.2g} s)"
    lines += [f"  time       {report.timing.seconds:.1f} s, {runs}"]
    return "\n".join([*lines, VERDICTS[report.status]])


def _check(check: Check, width: int) -> str:
    error = "-" if check.error is None else f"{check.error:.1e}"
    directions = ", ".join(f"{count} {ROADS[road]}" for road, count in check.roads.items())
    steps = "" if check.plateau is None else "steps {:.0e} to {:.0e}".format(*check.plateau)
    remarks = "; ".join(filter(None, [directions and f"directions: {directions}", steps, check.message]))
    return f"  {check.status:9}  {check.name:{width}}  error {error:>7}, limit {check.limit:.0e}  {remarks}".rstrip()


def _node(node: NodeCheck) -> str:
    error = "" if node.error is None else f": relative error {node.error:.2g}"
    reason = f" ({node.message})" if node.message else ""
    return f"  {node.status:9}  {node.op_type} {node.node!r}, input {node.input} ({node.value!r}){error}{reason}"
