"""The arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from onnx_gradcam.targets import help_text


def _methods(incomplete: str) -> list[str]:
    from onnx_gradcam.methods.table import AUTO, NAMES

    return beginning(incomplete, [AUTO, *NAMES])


def _presets(incomplete: str) -> list[str]:
    from onnx_gradcam.photos.preprocess.presets import PRESETS

    return beginning(incomplete, ["auto", *PRESETS])


def beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin as a word that is not finished yet."""
    return [name for name in names if name.startswith(incomplete)]


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file.", show_default=False)]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        help="Target layer: a value, node or module (layer4.2); several are fused.",
        show_default="auto",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="One label a line, a JSON list, 'imagenet' or 'coco'.",
        show_default=False,
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="TARGET", help=help_text(), show_default="top1"),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=FILE",
        help="An .npy array for another input of the model.",
        show_default=False,
    ),
]
Counterfactual = Annotated[
    bool, typer.Option("--counterfactual", help="What speaks against the class: the method on (A, −G).")
]
Signed = Annotated[bool, typer.Option("--signed", help="With negative evidence, in its own colour: no final ReLU.")]
Fusion = Annotated[str, typer.Option("--fusion", metavar="HOW", help="Of several layers: mean, max or product.")]
Levels = Annotated[
    str,
    typer.Option(
        "--levels",
        metavar="own|all",
        help="Of a detector: the level of the explained cell; or all: a class over all cells that detect it, at the "
        "layers of all levels, summed.",
    ),
]
Smooth = Annotated[
    list[str] | None,
    typer.Option(
        "--smooth",
        metavar="HOW",
        help="Of a layer's map: aug (brightness and mirrored), noise, eigen (principal component). Repeatable.",
        show_default=False,
    ),
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Of the method: steps=100, baseline=0.5 or =FILE.npy, samples=50, noise=0.2, seed=1. Repeatable.",
        show_default=False,
    ),
]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", metavar="N", min=1, help="The largest photo that is decoded, in pixels.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME",
        help="auto (hirescam for segmenters, detectors and sequences, gradcam for all others), gradcam, gradcam++, "
        "smooth-gradcam++, shapleycam, xgradcam, hirescam, elementwise, layercam, cam, eigencam, eigengradcam, "
        "segeigencam; of the activation alone: fem, kpcacam, activationmap, randomcam, dff (its concepts); of "
        "attention: legrad, gradient-rollout, attention-rollout; of the input: saliency, input-x-gradient, "
        "integrated-gradients, gradient-shap, deeplift, lrp, smoothgrad, squaregrad, vargrad, fullgrad, "
        "guided-backprop, deconvolution; of both: guided-gradcam, guided- and any other of a layer; that run what is "
        "behind the layer many times: ablationcam, reciprocam; that run the model many times: occlusion, rise, d-rise, "
        "lime, kernel-shap, scorecam, ss-cam, is-cam; all others: docs/methods.md.",
        autocompletion=_methods,
    ),
]
Preprocess = Annotated[
    str,
    typer.Option(
        "--preprocess",
        metavar="NAME|FILE",
        help="auto, imagenet, imagenet-caffe, tf, zero-one, raw, yolo, yolox; with changes: raw,BGR,letterbox or "
        "imagenet,stretch,320x320 or window=40:400 (centre and width, of 16-bit grey and volumes); or a JSON file.",
        autocompletion=_presets,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="DIR", help="Where results go.", show_default="onnx-gradcam-out/MODEL-METHOD"),
]
IMAGES = typer.Argument(
    metavar="IMAGE...",
    help="Photos, volumes (.nii) or .npy arrays: files, folders or globs; explain: or one video.",
    show_default=False,
)
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="P",
        min=0,
        max=1,
        help="The probability below which nothing is detected, or a class is near chance.",
        show_default="0.25 for detectors",
    ),
]
Question = Annotated[
    str | None,
    typer.Option(
        "--question",
        metavar="TEXT",
        help="Of a model that reads image and words: a question; its answer is explained.",
        show_default=False,
    ),
]
Caption = Annotated[
    str | None,
    typer.Option(
        "--caption",
        metavar="[TEXT]",
        help="Of a model that writes captions: each word of a sentence is explained, and the whole. Without TEXT, last "
        "or before another option: what the model itself says.",
        show_default=False,
    ),
]
