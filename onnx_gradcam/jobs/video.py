"""Explain a video: its frames in, one video of overlays out, at one scale."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, MethodError, OnnxGradcamError
from onnx_gradcam.explain.default_method import named
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.jobs.checks import check_request, files_read
from onnx_gradcam.jobs.explain import default_folder, is_of_one_image
from onnx_gradcam.jobs.pictures import Pictures, scales_of_run
from onnx_gradcam.jobs.plan import Plan, open_explainer, settle
from onnx_gradcam.jobs.request import Request
from onnx_gradcam.jobs.saving import check_document_folder, save_document
from onnx_gradcam.methods.table import require_target
from onnx_gradcam.photos.listing import of_file
from onnx_gradcam.photos.video import WRITTEN, Video, VideoFrame, VideoWriter, is_video
from onnx_gradcam.results import files, portrait
from onnx_gradcam.results.explanation import Explanation
from onnx_gradcam.results.journal import sha256
from onnx_gradcam.results.picture.figure import draw_box
from onnx_gradcam.results.picture.overlay import Picture, overlay
from onnx_gradcam.results.picture.screen import video_frame
from onnx_gradcam.results.picture.style import Style
from onnx_gradcam.results.scales import IMAGE, SHARED, Scales
from onnx_gradcam.results.titles import heading, percentage

DOCUMENT = "video.json"
SCHEMA_VERSION = 1
SHOWN_ROWS = 3
MILLISECONDS = 1000.0


@dataclass
class VideoOutcome:
    """What the explanation of a video came to.

    Attributes:
        source: the video that was explained.
        written: the video of overlays; None before a frame is written.
        document: the path of the document; None before it is written.
        frames: one record for each frame that was written.
        errors: one record for each frame that could not be decoded or explained.
        latencies: how long each frame took to explain, in seconds.
        seconds: how long reading, explaining, drawing and writing took together.
        scale: the value of the strongest colour, or one for each unit.
    """

    source: str
    written: Path | None = None
    document: Path | None = None
    frames: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    scale: float | Scales = 1.0

    @property
    def rate(self) -> float:
        """Return how many frames were explained, drawn and written in a second."""
        return len(self.frames) / self.seconds if self.seconds else 0.0

    def latency(self, share: float) -> float:
        """Return the time, in milliseconds, in which this share of the frames was explained."""
        return MILLISECONDS * float(np.quantile(self.latencies, share)) if self.latencies else 0.0


def names_video(request: Request) -> bool:
    """Tell whether a request names a video. Raises ``InputError`` where it names anything beside it."""
    if not any(map(is_video, request.images)):
        return False
    if len(request.images) > 1:
        raise InputError("a video is explained by itself", hint="one video, and no other image", images=request.images)
    return True


def run_video(
    request: Request,
    folder: Path | None = None,
    *,
    overwrite: bool = False,
    tick: Callable[[int, int | None], None] = lambda done, total: None,
) -> VideoOutcome:
    """Explain the frames of a video, and write a video of overlays and a document.

    All frames have one scale: by default the largest value of all, for which every frame is explained twice. Where the
    run is interrupted, the video holds the frames that were written, and the document says that it is not complete.

    Args:
        request: what is explained, and how; it names one video.
        folder: where the results go; None: ``default_folder``.
        overwrite: whether earlier results are replaced.
        tick: is called with the number of frames that are done, and of all, None where that is not known.

    Raises:
        InputError: the video cannot be read, or none of its frames can be explained.
        MethodError: each frame is to have its own scale, or there is no scale in the score's units; or the method
            explains no class: each frame would have concepts of its own.
        OutputError: the folder cannot be written, or holds a video already.
        OnnxGradcamError: what ``run`` raises for all images alike.
    """
    values = check_request(request)
    require_target(values.recipe)
    pictures = _at_one_scale(request.pictures)
    video = Video(Path(request.images[0]), request.every, request.max_pixels)
    with open_explainer(request) as explainer:
        plan = settle(request, values, explainer, [of_file(video.path)])
        request = replace(request, method=named(request.method, explainer.score))
        folder = folder or default_folder(request)
        check_document_folder(folder, DOCUMENT, overwrite)
        outcome = VideoOutcome(str(video.path))
        explained = (result for _, result, _ in _explain(explainer, plan, video, VideoOutcome("")))
        scale = scales_of_run(pictures, lambda: explained)
        assert scale is not None
        outcome.scale = scale
        start, complete = time.perf_counter(), False
        method = replace(values.recipe, method=request.method).name.replace(" ", "-")
        name = f"{video.path.stem}.{method}.{files.slug(','.join(request.targets))}{WRITTEN}"
        try:
            with VideoWriter(folder / name, video.rate / video.every) as writer:
                for frame, result, seconds in _explain(explainer, plan, video, outcome):
                    scaled = result.at_scale(scale)
                    writer.write(_draw(scaled, frame, pictures.style))
                    outcome.frames.append(_record(scaled, frame, seconds))
                    outcome.latencies.append(seconds)
                    tick(len(outcome.frames), video.count)
            complete = True
        finally:
            outcome.seconds = time.perf_counter() - start
            if outcome.frames:
                outcome.written = folder / name
                content = _document(outcome, request, explainer, plan, complete)
                outcome.document = save_document(content, DOCUMENT, {name: outcome.written}, folder, True)
    if not outcome.frames:
        why = outcome.errors[0]["error"] if outcome.errors else "it has none"
        raise InputError(f"no frame of '{video.path}' could be explained", where=why, hint="another video")
    return outcome


def _at_one_scale(pictures: Pictures) -> Pictures:
    if pictures.scale == IMAGE:
        raise MethodError(
            "the frames of a video have one scale: with one each, the same colour is another value in each frame",
            hint="--scale shared, or a number in the score's units",
            scale=IMAGE,
        )
    return replace(pictures, scale=pictures.scale or SHARED)


def _explain(
    explainer: Explainer, plan: Plan, video: Video, outcome: VideoOutcome
) -> Iterator[tuple[VideoFrame, Explanation, float]]:
    """Yield each frame with its explanation, and how long that took; note what fails of single frames."""

    def fail(index: int, why: str) -> None:
        outcome.errors.append({"frame": index, "error": why})

    if isinstance(plan.preprocess, InputError):
        raise plan.preprocess
    assert plan.preprocess is not None
    for frame in video.frames(fail):
        start = time.perf_counter()
        try:
            result = explainer.explain_image(
                frame.photo, plan.target, plan.method, preprocess=plan.preprocess, inputs=plan.inputs, **plan.keywords
            )
        except OnnxGradcamError as error:
            if not is_of_one_image(error):
                raise
            fail(frame.index, error.what)
            continue
        yield frame, result, time.perf_counter() - start


def _draw(explanation: Explanation, frame: VideoFrame, style: Style) -> Picture:
    """Return a frame with its map; of several rows it shows at each place the strongest."""
    count, size = len(explanation), frame.photo.shape[:2]
    levels = np.stack([portrait.level_of(explanation, row, size) for row in range(count)])
    strongest = np.take_along_axis(levels, np.abs(levels).argmax(axis=0)[None], axis=0)[0]
    picture = overlay(frame.photo, strongest, seen=explanation.region(0), signed=explanation.signed, style=style)
    for row in range(count):
        box = explanation.box_of(row)
        if box is not None:
            draw_box(picture, box, 1.0)
    names = [
        f"{heading(explanation.name(row))}{percentage(float(explanation.probability[row]))}"
        for row in range(min(count, SHOWN_ROWS))
    ]
    more = [f"and {count - SHOWN_ROWS} more"] if count > SHOWN_ROWS else []
    cautions = dict.fromkeys(line for row in range(count) for line in portrait.cautions(explanation, row))
    place = f"{frame.seconds:.2f} s, frame {frame.index}   {explanation.method}"
    place += f"   {explanation.unit(0)} {float(explanation.score[0]):.3g}" if count == 1 else ""
    return video_frame(picture, "   ".join([*names, *more]), place, [*cautions])


def _record(explanation: Explanation, frame: VideoFrame, seconds: float) -> dict[str, Any]:
    rows = [explanation.record(row) for row in range(len(explanation))]
    return {"frame": frame.index, "seconds": frame.seconds, "latency_ms": MILLISECONDS * seconds, "rows": rows}


def _document(
    outcome: VideoOutcome, request: Request, explainer: Explainer, plan: Plan, complete: bool
) -> Mapping[str, Any]:
    preprocess = plan.preprocess
    assert outcome.written is not None
    scale = dict(outcome.scale) if isinstance(outcome.scale, Mapping) else outcome.scale
    return {
        "schema_version": SCHEMA_VERSION,
        "complete": complete,
        "video": outcome.source,
        "sha256": sha256(Path(outcome.source)),
        "written": outcome.written.name,
        "model": {"name": explainer.source.name, "sha256": explainer.network.sha256},
        "versions": dict(explainer.network.versions),
        "request": request.as_dict(),
        "files_read": files_read(request, explainer.source),
        "preprocess": None if preprocess is None or isinstance(preprocess, InputError) else preprocess.record(),
        "scale": scale,
        "frames_per_second": outcome.rate,
        "latency_ms": {"median": outcome.latency(0.5), "p95": outcome.latency(0.95)},
        "frames": outcome.frames,
        "errors": outcome.errors,
    }
