"""The command line: parse, call, print, exit code."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from onnx_gradcam.errors import OnnxGradcamError

DONE, FOUND, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="onnx-gradcam",
    help="Explain any exported ONNX CNN with Grad-CAM, on the runtime that serves it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 a check found something, 2 bad input or usage, 130 interrupted.",
)
log = logging.getLogger("onnx_gradcam")

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.", show_default=False)]
Score = Annotated[str, typer.Option("--score", metavar="NAME", help="The score tensor, before its softmax.")]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        help="Target layer: a value or node name; several are fused.",
        show_default="auto",
    ),
]
Grid = Annotated[
    str | None,
    typer.Option(
        "--grid",
        metavar="HxW[+K]",
        help="How the tokens of the target layer lie in the image: H rows of W, behind K others (all the rest).",
        show_default="found by following the graph",
    ),
]
Provider = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="cpu, cuda, tensorrt, openvino, …  [default: cuda if it initialises, else cpu]",
        show_default=False,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="One label a line, a JSON list, or 'imagenet'.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME",
        help="gradcam, gradcam++, xgradcam, hirescam, elementwise, layercam, eigencam, eigengradcam, cam.",
    ),
]
Preprocess = Annotated[
    str,
    typer.Option(
        "--preprocess",
        metavar="NAME|FILE",
        help="auto, imagenet, imagenet-caffe, tf, zero-one, raw, or a JSON file.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from onnx_gradcam.runtime import versions

        for name, version in versions().items():
            print(f"{name} {version}")
        raise typer.Exit(DONE)


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more on stderr.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No warnings and no progress.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Versions of the tool, onnx, runtime, and providers.",
            callback=_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Options of all commands."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", force=True)
    log.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)


@app.command()
def explain(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="An .onnx file.", show_default=False)] = None,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE...", help="Photos or .npy arrays: files, folders or globs.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where results go.")] = Path(
        "onnx-gradcam-out"
    ),
    method: Method = "gradcam",
    layer: Layers = None,
    grid: Grid = None,
    score: Score = "auto",
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="top1, top5, a class index (281) or a label (tabby, label:180); several: each of them.",
            show_default="top1",
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=FILE",
            help="An .npy array for another input of the model.",
            show_default=False,
        ),
    ] = None,
    image_input: Annotated[
        str | None,
        typer.Option(
            "--image-input",
            metavar="NAME",
            help="The input that takes the images.",
            show_default="the first with the most axes",
        ),
    ] = None,
    labels: Labels = None,
    preprocess: Preprocess = "auto",
    provider: Provider = None,
    counterfactual: Annotated[
        bool, typer.Option("--counterfactual", help="What speaks against the class: the method on (A, −G).")
    ] = False,
    signed: Annotated[bool, typer.Option("--signed", help="Keep negative evidence: without the final ReLU.")] = False,
    fusion: Annotated[
        str, typer.Option("--fusion", metavar="HOW", help="Of several layers: mean, max or product.")
    ] = "mean",
    strict: Annotated[bool, typer.Option("--strict", help="A guessed preprocessing is an error.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")] = False,
    repeat: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MANIFEST",
            help="Repeat the run of a manifest.json; exit status 1 if a map differs.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain photos: a heatmap for each, as PNG and NPY, and manifest.json.

    Example: onnx-gradcam explain resnet50.onnx cat.jpg --target tabby -o out
    """
    from onnx_gradcam import job

    if repeat is not None:
        _repeat(repeat, as_json)
        return
    if model is None or not images:
        raise typer.BadParameter("MODEL and at least one IMAGE are needed (or --from MANIFEST)")
    request = job.Request(
        model=str(model),
        images=tuple(images),
        method=method,
        layers=tuple(layer or ["auto"]),
        grid=grid,
        image_input=image_input,
        score=score,
        targets=tuple(target or ["top1"]),
        labels=labels,
        preprocess=preprocess,
        providers=tuple(provider) if provider else None,
        inputs=tuple(inputs or []),
        counterfactual=counterfactual,
        signed=signed,
        fusion=fusion,
        strict=strict,
    )
    _explain(request, out, overwrite, as_json)


def _explain(request: Any, out: Path, overwrite: bool, as_json: bool) -> None:
    from onnx_gradcam import job

    said: set[str] = set()
    with _progress("explaining") as tick:

        def report(line: job.Line) -> None:
            for warning in line.warnings:
                if warning not in said:
                    said.add(warning)
                    log.warning("warning: %s", warning)
            if not as_json:
                p = "" if line.probability != line.probability else f"  {line.probability:.3f}"
                cell = "" if line.cell is None else f"  cell {','.join(map(str, line.cell))}"
                print(f"{line.image}  {line.label}{p}{cell}  {line.path}", flush=True)
            tick(line.image)

        log.info("%s", {k: v for k, v in request.as_dict().items() if v})
        outcome = job.run(request, out, overwrite=overwrite, report=report)
    if as_json:
        print(outcome.manifest.read_text("utf-8"), end="")
    for name, error in outcome.errors:
        print(f"error: {name}: {error}", file=sys.stderr)
    if outcome.errors:
        raise typer.Exit(BAD_INPUT)


def _repeat(manifest: Path, as_json: bool) -> None:
    from onnx_gradcam import job

    found = job.repeat(manifest)
    if as_json:
        print(json.dumps([{**r.__dict__, "same": r.same} for r in found], indent=2))
    else:
        for r in found:
            print(f"{r.npy}  {'same' if r.same else 'DIFFERS'}  {r.note or f'largest difference {r.difference:.2g}'}")
    if not all(r.same for r in found):
        raise typer.Exit(FOUND)


@app.command()
def inspect(
    model: Model,
    score: Score = "auto",
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="PHOTO", help="Top-1 and confidence under each preset.", show_default=False),
    ] = None,
    provider: Provider = None,
    as_json: AsJson = False,
) -> None:
    """Show inputs, outputs, score, candidate layers, and operators and which have no rule.

    With --provider cuda also which have no kernel there; no GPU is needed.
    """
    from onnx_gradcam.overview import overview, presets_on

    providers = tuple(provider) if provider else None
    found = overview(model, score, providers)
    presets = presets_on(model, image, score, providers) if image else []
    if as_json:
        print(json.dumps({**found.as_dict(), "presets": presets}, indent=2, default=str))
        return
    print(found)
    for row in presets:
        print("  {preset:15} {label:30} {probability:.3f}".format(**row))


@app.command()
def verify(
    model: Model,
    layer: Layers = None,
    grid: Grid = None,
    score: Score = "auto",
    provider: Provider = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random input and directions.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check forward pass and gradient numerically, on this model; exit status 1 if something is wrong or undecided."""
    from onnx_gradcam.verify import verify as check

    with _progress("verifying"):
        report = check(
            model,
            target_layer=layer or "auto",
            score=score,
            providers=tuple(provider) if provider else None,
            seed=seed,
            grid=grid,
        )
    print(json.dumps(report.as_dict(), indent=2) if as_json else report)
    if not report.ok:
        raise typer.Exit(FOUND)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="An .onnx file, or FILE@provider.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another build of the same model.", show_default=False)],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Photos or .npy arrays: files, folders or globs.", show_default=False),
    ],
    method: Method = "gradcam",
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="A class index or label, for both models.",
            show_default="A's top-1 for each image",
        ),
    ] = None,
    layer: Layers = None,
    layer_a: Annotated[
        list[str] | None, typer.Option("--layer-a", metavar="NAME", help="Of A only.", show_default=False)
    ] = None,
    layer_b: Annotated[
        list[str] | None, typer.Option("--layer-b", metavar="NAME", help="Of B only.", show_default=False)
    ] = None,
    score_a: Annotated[str, typer.Option("--score-a", metavar="NAME", help="The score tensor of A.")] = "auto",
    score_b: Annotated[str, typer.Option("--score-b", metavar="NAME", help="The score tensor of B.")] = "auto",
    labels: Labels = None,
    preprocess: Preprocess = "auto",
    preprocess_b: Annotated[
        str | None,
        typer.Option("--preprocess-b", metavar="NAME|FILE", help="Of B only.", show_default="as for A"),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="CLAUSE",
            help="Exit status 1 unless it holds: 'pearson:p05>=0.9', 'iou:median>=0.6', 'distance:p95<=0.1' (of the "
            "diagonal), 'agreement>=0.99'; statistics are median, worst and p00 to p99. Repeatable.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what two builds of a model see: predictions, and the heatmaps of the same class.

    Example: onnx-gradcam compare model.onnx model-int8.onnx photos --require 'pearson:p05>=0.9'
    """
    from onnx_gradcam.audit import compare as run

    with _progress("comparing") as tick:

        def report(pair: Any) -> None:
            if not as_json:
                print(pair, flush=True)
            tick(pair.image)

        found = run(
            a,
            b,
            images,
            target=target,
            method=method,
            layer_a=layer_a or layer or "auto",
            layer_b=layer_b or layer or "auto",
            score_a=score_a,
            score_b=score_b,
            labels=labels,
            preprocess=preprocess,
            preprocess_b=preprocess_b,
            require=require or [],
            report=report,
        )
    for warning in found.warnings:
        log.warning("warning: %s", warning)
    print(json.dumps(found.as_dict(), indent=2) if as_json else found)
    for image, error in found.errors:
        print(f"error: {image}: {error}", file=sys.stderr)
    for finding in found.findings:
        if not finding.ok:
            print(f"failed: {finding}", file=sys.stderr)
    if found.errors:
        raise typer.Exit(BAD_INPUT)
    if not found.ok:
        raise typer.Exit(FOUND)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where results go.")] = Path(
        "onnx-gradcam-out"
    ),
    as_json: AsJson = False,
) -> None:
    """Run the main job on the bundled model and images."""
    from onnx_gradcam import demo as bundled

    _explain(bundled.request(), out, True, as_json)


class _progress:
    """A spinner on stderr while the body runs, where stderr is a terminal and nobody asked for quiet."""

    def __init__(self, what: str) -> None:
        self._what = what
        shown = sys.stderr.isatty() and log.isEnabledFor(logging.WARNING)
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown)

    def __enter__(self) -> Any:
        self._progress.start()
        task = self._progress.add_task(self._what)
        return lambda name: self._progress.update(task, description=f"{self._what} {name}")

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def main() -> NoReturn:
    """Entry point: errors of this package become a message and exit status 2."""
    try:
        app()
    except OnnxGradcamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(DONE)
