"""A video in, a video of overlays out: its frames, their order, one scale, and what happens when something breaks."""

from __future__ import annotations

import importlib
import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brightness import CELL, SIDE
from extras import extra

import onnx_gradcam as ogc
from onnx_gradcam.explain.explainer import Explainer
from onnx_gradcam.photos.video import Video, VideoWriter

pytestmark = extra("video", "av")
COUNT, RATE = 9, 10
OUT = Path("out")
WRITTEN = OUT / "drive.gradcam.0.mp4"


def photo(k: int) -> np.ndarray:
    """A square that moves to the right and gets brighter, frame by frame; the frame has the size of the input."""
    pixels = np.full((SIDE, SIDE + CELL, 3), 20, np.uint8)
    pixels[2 * CELL : 3 * CELL, k // 2 * CELL : (k // 2 + 1) * CELL] = min(60 + 20 * k, 255)
    return pixels


def write(path: Path, count: int = COUNT, codec: str = "ffv1", pixel_format: str = "bgr0") -> Path:
    """Write a video whose pixels are those that were drawn."""
    av: Any = importlib.import_module("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = SIDE + CELL, SIDE, pixel_format
        for k in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(photo(k), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def pictures(path: Path) -> list[np.ndarray]:
    frames = list(Video(path).frames(lambda index, why: pytest.fail(f"{index}: {why}")))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all(a.seconds < b.seconds for a, b in pairwise(frames))
    factor = max(frame.photo.shape[1] // (SIDE + CELL) for frame in frames)
    return [frame.photo[: SIDE * factor : factor, ::factor] for frame in frames]


def document() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((OUT / "video.json").read_text("utf-8"))
    return content


EXPLAIN = ("explain", "model.onnx", "drive.avi", "--preprocess", "good.json", "--target", "0", "-o", "out")


def test_frames_are_read_as_they_were_drawn(tmp_path: Path) -> None:
    video = Video(write(tmp_path / "drive.avi"))
    frames = list(video.frames(lambda index, why: pytest.fail(why)))
    assert (video.count, video.rate) == (COUNT, Fraction(RATE))
    for k, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.photo, photo(k))
        assert (frame.index, frame.seconds) == (k, pytest.approx(k / RATE))
    assert len(frames) == COUNT


def test_count_order_pixels_and_scale(folder: Path, run: Any) -> None:
    write(folder / "drive.avi")
    status, out, err = run(*EXPLAIN)
    assert status == 0, err
    assert out.startswith(f"drive.avi  {COUNT} frames  ")
    assert "frames/s  latency " in out
    written, content = pictures(WRITTEN), document()
    assert len(written) == COUNT
    with ogc.Explainer("model.onnx") as explainer:
        each = [explainer.explain_image(photo(k), 0, preprocess="good.json") for k in range(COUNT)]
    largest = max(float(one.scale[0]) for one in each)
    assert content["scale"] == {"score": pytest.approx(largest)}
    for k, (one, got) in enumerate(zip(each, written, strict=True)):
        expected = one.at_scale(largest).overlay()
        difference = np.abs(got.astype(int) - expected)
        assert difference.mean() < 4, k  # H.264 keeps half of the colours' places
        others = [np.abs(got.astype(int) - other).mean() for other in (expected, each[k - 1].overlay())]
        assert others[0] < others[1]
    assert [frame["frame"] for frame in content["frames"]] == list(range(COUNT))
    assert [frame["seconds"] for frame in content["frames"]] == pytest.approx([k / RATE for k in range(COUNT)])
    assert [row["score"] for frame in content["frames"] for row in frame["rows"]] == pytest.approx(
        [float(one.score[0]) for one in each]
    )
    assert content["complete"] is True
    assert content["frames_per_second"] > 0
    assert 0 < content["latency_ms"]["median"] <= content["latency_ms"]["p95"]
    assert list(content["files"]) == [WRITTEN.name]


def test_every_third_frame(folder: Path, run: Any) -> None:
    write(folder / "drive.avi")
    status, out, err = run(*EXPLAIN, "--every", "3", "--scale", "0.5", "--json")
    assert status == 0, err
    content = json.loads(out)
    assert [frame["frame"] for frame in content["frames"]] == [0, 3, 6]
    assert content["scale"] == 0.5
    assert len(pictures(WRITTEN)) == 3
    assert Video(WRITTEN).rate == Fraction(RATE, 3)


def test_several_targets_are_drawn_together(folder: Path, run: Any) -> None:
    write(folder / "drive.avi", 2)
    status, _, err = run(*EXPLAIN[:5], "--target", "top2", "-o", "out")
    assert status == 0, err
    assert [len(frame["rows"]) for frame in document()["frames"]] == [2, 2]


def test_an_interrupt_leaves_a_whole_file(folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "drive.avi")
    explain_image, calls = Explainer.explain_image, []

    def stop(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return explain_image(*arguments, **keywords)

    monkeypatch.setattr(Explainer, "explain_image", stop)
    assert run(*EXPLAIN, "--scale", "0.5")[0] == 130
    assert len(pictures(WRITTEN)) == 4
    assert document()["complete"] is False
    assert len(document()["frames"]) == 4
    assert sorted(path.name for path in OUT.iterdir()) == [WRITTEN.name, "video.json"]


def damaged(path: Path, number: int) -> None:
    """Overwrite the data of one frame."""
    av: Any = importlib.import_module("av")
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    data = path.read_bytes()
    assert data.count(packets[number]) == 1
    path.write_bytes(data.replace(packets[number], bytes(len(packets[number]))))


def test_a_broken_frame_is_named_and_the_others_are_written(folder: Path, run: Any) -> None:
    damaged(write(folder / "drive.avi", codec="mjpeg", pixel_format="yuvj420p"), 4)
    status, _, err = run(*EXPLAIN)
    assert status == 2
    assert "error: frame 4: " in err
    assert [frame["frame"] for frame in document()["frames"]] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert [error["frame"] for error in document()["errors"]] == [4]
    assert len(pictures(WRITTEN)) == 8


def test_a_file_that_is_cut_off_is_explained_as_far_as_it_goes(folder: Path, run: Any) -> None:
    path = write(folder / "drive.mkv", 24, "mjpeg", "yuvj420p")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert run("explain", "model.onnx", "drive.mkv", *EXPLAIN[3:])[0] in (0, 2)
    assert COUNT < len(pictures(WRITTEN)) < 24


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--scale", "image"), "the frames of a video have one scale"),
        (("photos",), "a video is explained by itself"),
        (("--both",), "one map a frame"),
        (("--resume",), "one map a frame"),
        (("--method", "dff"), "has a map for each concept, and none for a class"),
    ],
)
def test_what_is_not_for_videos(more: tuple[str, ...], message: str, folder: Path, run: Any) -> None:
    write(folder / "drive.avi", 2)
    status, _, err = run(*EXPLAIN, *more)
    assert (status, message in " ".join(err.replace("│", " ").split())) == (2, True), err


def test_results_that_are_there_stay(folder: Path, run: Any) -> None:
    write(folder / "drive.avi", 2)
    assert run(*EXPLAIN)[0] == 0
    before = WRITTEN.read_bytes()
    status, _, err = run(*EXPLAIN)
    assert (status, "already holds a video" in err) == (2, True)
    assert run(*EXPLAIN, "--overwrite")[0] == 0
    assert WRITTEN.read_bytes() == before
    assert run(*EXPLAIN[:6], "1", "-o", "out", "--overwrite")[0] == 0
    assert [path.name for path in OUT.glob("*.mp4")] == ["drive.gradcam.1.mp4"]


def test_what_is_no_video(folder: Path, run: Any) -> None:
    (folder / "drive.avi").write_text("no video")
    status, _, err = run(*EXPLAIN)
    assert (status, "as a video" in err) == (2, True)
    assert not OUT.exists()


def test_a_writer_without_frames_leaves_nothing(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "empty.mp4", Fraction(10)):
        pass
    assert list(tmp_path.iterdir()) == []
