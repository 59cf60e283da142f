"""Write the generated parts of the documentation, or with --check say which pages are out of date.

    python tools/docs.py [--check]

A page is written by hand, but for its generated blocks: what stands between ``<!-- generated: NAME -->`` and
``<!-- /generated -->`` is made from the docstrings and tables of the package. ``PAGES`` says which page has which
blocks.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import peers
import typer.main

from onnx_gradcam.autodiff.registry import EACH, RULES
from onnx_gradcam.cli import app
from onnx_gradcam.graph.flow import NO_GRADIENT, STEERING
from onnx_gradcam.graph.lowering.bodies import has_body
from onnx_gradcam.graph.lowering.registry import LOWERINGS
from onnx_gradcam.graph.prepare.prepare import NEWEST
from onnx_gradcam.jobs.evaluate.chosen import NEEDS_OF_DATA
from onnx_gradcam.methods.attribution import ATTRIBUTIONS, guided
from onnx_gradcam.methods.cam import COMBINATIONS, NEEDS_GRADIENT
from onnx_gradcam.methods.copies import SMOOTHING_COPIES
from onnx_gradcam.methods.factorization import CONCEPT_METHODS
from onnx_gradcam.methods.heatmap import fuse
from onnx_gradcam.methods.perturbation.table import PERTURBATIONS, TAIL_METHODS
from onnx_gradcam.methods.projections import PROJECTIONS
from onnx_gradcam.methods.table import GUIDED_CAMS, SMOOTHINGS, options_of
from onnx_gradcam.methods.tokens import TOKEN_METHODS
from onnx_gradcam.methods.weights import WEIGHTS
from onnx_gradcam.metrics.table import METRICS
from onnx_gradcam.targets import Custom, Each, parse
from onnx_gradcam.targets.text import READERS

sys.path.insert(0, str(Path(__file__).resolve().parent))
from rule_tests import checked_by

ROOT = Path(__file__).resolve().parent.parent
OLDEST = 7
EXAMPLE_LABELS = ["tabby", "tiger cat", "car", "dog"]
DIFFERENCES = ("check_vjp", "check_affine")
PRODUCT = "guided-gradcam"
BLOCK = re.compile(r"<!-- generated: ([a-z-]+) -->\n((?:(?!<!-- generated).)*?)<!-- /generated -->", re.DOTALL)
RECORDS = ROOT / "docs" / "decisions"


def operators() -> str:
    """Return the table of operators that have a rule of their own."""
    head = ["| operator | input | opsets | rule | formats | tested against |", "| --- | --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *(_row(op_type, i, rule.function) for (op_type, i), rule in sorted(RULES.items()))])


def lowerings() -> str:
    """Return the table of operators that are differentiated through standard ones."""
    lines = ["| operator | domain | standard form |", "| --- | --- | --- |"]
    for (domain, op_type), function in sorted(LOWERINGS.items(), key=lambda x: x[0][::-1]):
        lines.append(f"| {op_type} | {domain or 'ai.onnx'} | {_cell(_first_line(function))} |")
    return "\n".join(lines)


def function_bodies() -> str:
    """Return the operators that are differentiated through the function body by which ONNX defines them."""
    ruled = {op_type for op_type, _ in RULES} | {op_type for domain, op_type in LOWERINGS if not domain} | NO_GRADIENT
    return ", ".join(sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == "" and _has_body(s)} - ruled))


def no_gradient() -> str:
    """Return the operators through which no gradient flows by definition."""
    return ", ".join(sorted(NO_GRADIENT))


def _row(op_type: str, i: int, function: Callable[..., object]) -> str:
    cells = (op_type, _input(op_type, i), _opsets(op_type), _first_line(function), _formats(op_type), _tests(op_type))
    return f"| {' | '.join(map(_cell, cells))} |"


def _opsets(op_type: str) -> str:
    """From the first with the operator, 7 at least, to the last that has it, or that onnxruntime runs."""
    versions = [s for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == ("", op_type)]
    first = min(s.since_version for s in versions)
    ends = [s.since_version - 1 for s in versions if s.deprecated]
    first, last = max(first, OLDEST), min([*ends, NEWEST])
    return f"{first} to {last}" if first < last else str(last)


def _formats(op_type: str) -> str:
    names = ["float16"] if op_type in checked_by("check_float16") else []
    names += ["float32"]
    names += ["float64"] if op_type in checked_by(*DIFFERENCES) else []
    return ", ".join(names)


def _tests(op_type: str) -> str:
    names = ["differences"] if op_type in checked_by(*DIFFERENCES) else []
    names += ["torch"] if op_type in checked_by("check_torch", "importorskip") else []
    return ", ".join(names or ["values"])


def _has_body(schema: onnx.defs.OpSchema) -> bool:
    """Whether a function body of real numbers defines the operator, up to the newest opset that is run."""
    real = bool(schema.inputs) and "tensor(float)" in schema.inputs[0].types and (schema.name, 0) not in STEERING
    return real and has_body(schema.name, NEWEST)


def _input(op_type: str, i: int) -> str:
    if i == EACH:
        return "each"
    inputs = onnx.defs.get_schema(op_type).inputs if onnx.defs.has(op_type) else []
    return inputs[i].name if i < len(inputs) else str(i)


def methods() -> str:
    """Return the table of methods: name, formula, source, and what gradient it needs."""
    rows = ["| method | formula | source | gradient |", "| --- | --- | --- | --- |"]
    for name, function in [*WEIGHTS.items(), *PROJECTIONS.items()]:
        formula, _, source = _first_line(function).partition("   ")
        rows.append(f"| `{name}` | {_cell(formula)} | {source} | {'yes' if name in NEEDS_GRADIENT else 'no'} |")
    for name, of_tokens in TOKEN_METHODS.items():
        formula, _, source = _first_line(of_tokens.function).partition("   ")
        needed = "of the attention" if "gradient" in of_tokens.needs else "no"
        rows.append(f"| `{name}` | {_cell(formula)} | {source} | {needed} |")
    for name, function in CONCEPT_METHODS.items():
        formula, _, source = _first_line(function).partition("   ")
        rows.append(f"| `{name}` | {_cell(formula)} | {source} | no |")
    of_input: dict[str, Callable[..., object]] = {**ATTRIBUTIONS, PRODUCT: guided}
    for name, function in of_input.items():
        formula, _, source = _first_line(function).partition("   ")
        rows.append(f"| `{name}` | {_cell(formula)} | {source} | of the input |")
    for name, method in PERTURBATIONS.items():
        formula, _, source = _first_line(method.function).partition("   ")
        what = "what is behind the layer" if name in TAIL_METHODS else "the model"
        rows.append(f"| `{name}` | {_cell(formula)} | {source} | no: runs {what} many times |")
    return "\n".join(rows)


def definitions() -> str:
    """Return a section for each method: its formula, its source, what to know about it, its options."""
    lines = []
    tokens = [(name, method.function) for name, method in TOKEN_METHODS.items()]
    perturbations = [(name, method.function) for name, method in PERTURBATIONS.items()]
    for name, function in [
        *WEIGHTS.items(),
        *PROJECTIONS.items(),
        *tokens,
        *CONCEPT_METHODS.items(),
        *ATTRIBUTIONS.items(),
        *perturbations,
    ]:
        options = ", ".join(f"`{option}` ({default})" for option, default in options_of(name).items())
        lines += [f"### {name}", "", explained(function), ""]
        lines += [f"Options: {options}.", ""] if options else []
    names = ", ".join(f"`{name}`" for name in GUIDED_CAMS)
    lines += [f"### {PRODUCT}", "", explained(guided), "", f"With every cam: {names}."]
    return "\n".join(lines)


def smoothings() -> str:
    """Return the table of smoothings, and a section for each."""
    lines = ["| name | what is taken | source |", "| --- | --- | --- |"]
    functions: dict[str, Callable[..., object]] = {
        **SMOOTHING_COPIES,
        **{name: f for name, f in COMBINATIONS.items() if name in SMOOTHINGS},
    }
    for name, function in functions.items():
        what, _, source = _first_line(function).partition("   ")
        lines.append(f"| `{name}` | {_cell(what)} | {source} |")
    for name, function in functions.items():
        lines += ["", f"### Smoothing by {name}", "", explained(function)]
    return "\n".join(lines)


def fusion() -> str:
    """Return how several layers become one map."""
    return explained(fuse)


def target_forms() -> str:
    """Return the table of the forms that ``--target`` takes."""
    lines = [
        "| `--target` | meaning | object |",
        "| --- | --- | --- |",
        "| `top1`, `top5` | the classes with the highest scores | `None`, `TopK(5)` |",
        "| `boxes`, `boxes5`, `boxes@0.4` | all that a detector finds: at most 5, from p 0.4 on | `Boxes` |",
        '| `281`, `tabby`, `label:180` | a class by its index or label | `281`, `"tabby"` |',
    ]
    for name, form in READERS.items():
        lines.append(f"| `{form.example}` | {_cell(form.meaning)} | `{type(_example(name)).__name__}` |")
    return "\n".join(lines)


def target_objects() -> str:
    """Return a section for each target object."""
    lines = []
    for cls in dict.fromkeys([*map(type, map(_example, READERS)), Custom, Each]):
        lines += [f"### {cls.__name__}", "", explained(cls), ""]
    return "\n".join(lines).rstrip()


def _example(name: str) -> Any:
    """Return what the example of a form is read as."""
    return parse([READERS[name].example], 2000, EXAMPLE_LABELS)


def cli() -> str:
    """Return the help of the program and of each of its commands."""
    command: Any = typer.main.get_command(app)
    parts = ["```text", _help(command, "onnx-gradcam"), "```"]
    for name, sub in command.commands.items():
        parts += ["", f"## {name}", "", "```text", _help(sub, f"onnx-gradcam {name}"), "```"]
    return "\n".join(parts)


def metrics() -> str:
    """Return the table of metrics: name, formula, source, which way is better, chance, and what the data must have."""
    rows = ["| metric | formula | source | better | chance | needs |", "| --- | --- | --- | --- | --- | --- |"]
    for name, metric in METRICS.items():
        needs = ", ".join(dict.fromkeys(NEEDS_OF_DATA[need] for need in metric.needs if need in NEEDS_OF_DATA))
        chance = "" if metric.chance is None else metric.chance
        rows.append(f"| `{name}` | {_cell(metric.formula)} | {metric.source} | {metric.better} | {chance} | {needs} |")
    return "\n".join(rows)


def decisions() -> str:
    """Return the list of decision records."""
    titles = {path.name: path.read_text("utf-8").splitlines()[0] for path in sorted(RECORDS.glob("0*.md"))}
    return "\n".join(f"- [{title.lstrip('# ')}]({name})" for name, title in titles.items())


def _help(command: Any, path: str) -> str:
    context = command.make_context(path, [], resilient_parsing=True)
    context.terminal_width = context.max_content_width = 100
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


BLOCKS: dict[str, Callable[[], str]] = {
    "operators": operators,
    "lowerings": lowerings,
    "function-bodies": function_bodies,
    "no-gradient": no_gradient,
    "methods": methods,
    "definitions": definitions,
    "smoothings": smoothings,
    "fusion": fusion,
    "peer-methods": lambda: peers.table("methods"),
    "peer-metrics": lambda: peers.table("metrics"),
    "target-forms": target_forms,
    "target-objects": target_objects,
    "commands": cli,
    "metrics": metrics,
    "decisions": decisions,
}
PAGES: dict[str, tuple[str, ...]] = {
    "docs/operators.md": ("operators", "lowerings", "function-bodies", "no-gradient"),
    "docs/methods.md": ("methods", "smoothings", "fusion", "definitions", "peer-methods", "peer-metrics"),
    "docs/targets.md": ("target-forms", "target-objects"),
    "docs/evaluation.md": ("metrics",),
    "docs/cli.md": ("commands",),
    "docs/decisions/index.md": ("decisions",),
}


def with_block(text: str, name: str, content: str) -> str:
    """Return ``text`` with ``content`` between the markers of block ``name``; what stood there is dropped."""
    match = next((m for m in BLOCK.finditer(text) if m[1] == name), None)
    if match is None:
        raise ValueError(f"the page lacks <!-- generated: {name} --> … <!-- /generated -->")
    return f"{text[: match.start()]}<!-- generated: {name} -->\n{content}\n<!-- /generated -->{text[match.end() :]}"


def page(name: str) -> str:
    """Return a page with its blocks as they should be now."""
    text = (ROOT / name).read_text("utf-8")
    for block in PAGES[name]:
        text = with_block(text, block, f"\n{BLOCKS[block]()}\n")
    return text


def explained(function: object) -> str:
    """Return what a docstring explains, without its sections on arguments, attributes and errors."""
    return re.split(r"\n\n(?:Args|Attributes|Returns|Raises):\n", inspect.getdoc(function) or "")[0]


def _first_line(function: Callable[..., object]) -> str:
    return (inspect.getdoc(function) or "").splitlines()[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    os.environ["COLUMNS"] = "100"
    stale = []
    for name in PAGES:
        path, text = ROOT / name, page(name)
        if path.read_text("utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, "utf-8")
    if "--check" in sys.argv and stale:
        print(f"out of date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
