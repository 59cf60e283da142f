"""Attacks on files: one after the other, each with a picture of its maps before and after."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from onnx_gradcam.errors import InputError, OnnxGradcamError
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.explain.opening import Opening
from onnx_gradcam.explain.preprocessing import refuse_guesses
from onnx_gradcam.explain.question import attempt
from onnx_gradcam.graph.load import ModelLike
from onnx_gradcam.jobs.attack.attack import attack, check_attack
from onnx_gradcam.jobs.attack.pictures import attack_picture
from onnx_gradcam.jobs.attack.ready import check_model
from onnx_gradcam.jobs.attack.result import AttackResult
from onnx_gradcam.jobs.explain import OF_ALL_IMAGES, RESULTS
from onnx_gradcam.jobs.plan import is_array
from onnx_gradcam.jobs.requested import for_json
from onnx_gradcam.jobs.saving import save_document
from onnx_gradcam.jobs.truth import no_label, true_classes
from onnx_gradcam.methods.table import recipe_of, require_target
from onnx_gradcam.photos.decode import MAX_PIXELS, load_tensor
from onnx_gradcam.photos.inputs import beside_image
from onnx_gradcam.photos.labels import LabelsLike
from onnx_gradcam.photos.listing import find_images
from onnx_gradcam.photos.preprocess.choice import Choice, PreprocessLike
from onnx_gradcam.results import files
from onnx_gradcam.results.journal import ATTACK, holds_results, sha256
from onnx_gradcam.results.picture.overlay import Picture, encode_png
from onnx_gradcam.targets import Classes, class_index

SCHEMA_OF_ATTACK = 1


@dataclass(frozen=True, eq=False)
class AttackedFile:
    """The attack on one file.

    Attributes:
        image: the path of the file.
        sha256: of the file.
        stem: how the names of its results begin.
        result: the attack.
        picture: the maps before and after; None where none can be drawn.
    """

    image: str
    sha256: str
    stem: str
    result: AttackResult
    picture: Picture | None


@dataclass(frozen=True, eq=False, repr=False)
class AttackReport:
    """The attacks on several files.

    Attributes:
        attacked: one for each file.
        errors: files that could not be attacked, each with the reason.
        request: what was asked for, ready for JSON.
        warnings: what the user should know.
    """

    attacked: tuple[AttackedFile, ...]
    errors: tuple[tuple[str, str], ...] = ()
    request: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[int, int]:
        """Return how many images were right before, and how many of these the attack changed."""
        right = [each.result for each in self.attacked if each.result.right[0]]
        return len(right), sum(bool(result.success[0]) for result in right)

    def as_dict(self) -> dict[str, Any]:
        """Return the attacks as JSON has them; its JSON Schema is described in ``docs/formats.md``."""
        first = self.attacked[0].result.as_dict()
        right, changed = self.counts
        common = {key: value for key, value in first.items() if key not in ("rows", "success_rate", "warnings")}
        return {
            "schema_version": SCHEMA_OF_ATTACK,
            **common,
            "request": dict(self.request),
            "right_before": right,
            "changed": changed,
            "success_rate": changed / right if right else None,
            "rows": [
                {
                    "image": each.image,
                    "sha256": each.sha256,
                    **each.result.as_dict()["rows"][0],
                    "png": None if each.picture is None else f"{each.stem}.attack.png",
                    "npy": f"{each.stem}.adversarial.npy",
                }
                for each in self.attacked
            ],
            "errors": [{"image": image, "error": error} for image, error in self.errors],
            "warnings": list(self.warnings),
            "files": {},
        }

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write for each image its picture and the attacked tensor, and ``attack.json`` last.

        Args:
            folder: where to write; it is made where it does not exist.
            overwrite: whether earlier attacks are replaced.

        Returns:
            The path of ``attack.json``.

        Raises:
            OutputError: the folder cannot be written, or holds attacks already.
        """
        written: dict[str, bytes] = {}
        for each in self.attacked:
            if each.picture is not None:
                written[f"{each.stem}.attack.png"] = encode_png(each.picture)
            written[f"{each.stem}.adversarial.npy"] = files.encode_npy(each.result.adversarial)
        return save_document(self.as_dict(), ATTACK, written, Path(folder), overwrite)


def attack_files(
    model: ModelLike,
    images: Sequence[str | os.PathLike[str]],
    target: int | str | None = None,
    *,
    true: str | None = None,
    attack_method: str = "fgsm",
    method: str = "auto",
    target_layer: str | Sequence[str] = "auto",
    options: Mapping[str, Any],
    inputs: Mapping[str, Any],
    labels: LabelsLike = None,
    preprocess: PreprocessLike = "auto",
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    how: Mapping[str, Any],
    report: Callable[[AttackedFile | tuple[str, str], int, int], None] = lambda row, number, total: None,
    **opening: Unpack[Opening],
) -> AttackReport:
    """Return the attacks on every image, each with a picture of the maps before and after.

    One image: all or nothing. Several: those that cannot be attacked are collected in ``errors``.

    Args:
        model: path, bytes or ``onnx.ModelProto``.
        images: files, folders or globs; .npy files hold arrays in the model's own input form.
        target: the class that the attack aims at; None: any other than the true one.
        true: the true class of all images, the path of a table, or "folder"; None: what the model puts first.
        attack_method: "fgsm" or "pgd".
        method, target_layer, options: of the maps, as for ``Explainer`` and ``explain``.
        inputs, labels, max_pixels: as for ``attack``.
        preprocess: how photos become tensors.
        strict: whether a guessed preprocessing is an error.
        how: the other keywords of ``attack``: epsilon, steps, step_size, norm, loss, random_start, seed.
        report: is called with each image, or (image, error), its number and that of all.
        **opening: the keywords of ``Opening``.

    Raises:
        InputError: no image can be attacked.
        MethodError: the attack or the method of the maps is unknown, or explains no class.
        OnnxGradcamError: all else that ``attack``, ``Explainer`` and ``explain`` raise.
    """
    numbers = {
        "norm": "linf",
        "loss": "cross-entropy",
        "epsilon": None,
        "steps": 1,
        "step_size": None,
        "seed": 0,
        **how,
    }
    check_attack(attack_method, *(numbers[key] for key in ("norm", "loss", "epsilon", "steps", "step_size", "seed")))
    require_target(recipe_of(method, options=options))
    listing = find_images(images, holds_results).images
    stems = files.stems([image.name for image in listing], [image.path for image in listing], [])
    attacked: list[AttackedFile] = []
    errors: list[tuple[str, str]] = []
    with Explainer(model, target_layer, labels=labels, **opening) as explainer:
        check_model(explainer)
        choice = _preprocessing(explainer, preprocess)
        if strict:
            refuse_guesses(choice, explainer.image_input)
        classes = None if true is None else true_classes(true, listing, explainer)
        aim = None if target is None else class_index(target, explainer.score.count, explainer.labels)

        def one(path: Path, stem: str) -> AttackedFile:
            if classes is not None and path not in classes:
                raise no_label(path, true or "")
            x = _array(path, len(explainer.image_input.shape)) if is_array(path) else path
            own = None if classes is None else classes[path]
            keywords: dict[str, Any] = {**how, "method": attack_method, "inputs": inputs, "max_pixels": max_pixels}
            result = attack(explainer, x, aim, true=own, preprocess=choice, **keywords)
            shown = Classes(list(dict.fromkeys([int(result.before[0]), int(result.after[0])])))
            before, after = (
                explainer.explain(beside_image(explainer.image_input.name, each, inputs), shown, method, **options)
                for each in (result.x, result.adversarial)
            )
            return AttackedFile(str(path), sha256(path), stem, result, attack_picture(result, before, after, path.name))

        for number, (image, stem) in enumerate(zip(listing, stems, strict=True), 1):
            row = attempt(one, image.path, stem)
            if isinstance(row, OnnxGradcamError):
                if isinstance(row, OF_ALL_IMAGES) or len(listing) == 1:
                    raise row
                errors.append((str(image.path), str(row)))
                report(errors[-1], number, len(listing))
            else:
                attacked.append(row)
                report(row, number, len(listing))
    if not attacked:
        raise InputError(f"none of the {len(listing)} images could be attacked", where=errors[0][1].splitlines()[0])
    request = {
        "images": images,
        "target": target,
        "true": true,
        "attack": attack_method,
        "method": method,
        "target_layer": target_layer,
        "options": options,
        "inputs": inputs,
        "labels": labels,
        "preprocess": preprocess,
        "strict": strict,
        "max_pixels": max_pixels,
        **how,
        "opening": opening,
    }
    warnings = dict.fromkeys(warning for each in attacked for warning in each.result.warnings)
    return AttackReport(tuple(attacked), tuple(errors), for_json(request), tuple(warnings))


def default_folder(model: str | os.PathLike[str], attack_method: str) -> Path:
    """Return where attacks go if the user names no folder: onnx-gradcam-out/<model>-<attack>-attack."""
    return RESULTS / f"{Path(model).stem}-{attack_method}-attack"


def _array(path: Path, rank: int) -> np.ndarray:
    x = load_tensor(path)
    return x[None] if x.ndim == rank - 1 else x


def _preprocessing(explainer: Explainer, preprocess: PreprocessLike) -> Choice:
    """Return how photos become tensors: it tells how much of an array is a grey level."""
    try:
        return explainer.preprocessing(preprocess)
    except InputError as error:
        raise InputError(
            f"input {explainer.image_input} holds no pixels of a photo, so that changes have no grey levels",
            hint="in Python attack(model, array, epsilon=0.1, preprocess=None), in the input's own numbers",
            name=explainer.image_input.name,
        ) from error
