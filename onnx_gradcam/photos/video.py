"""Videos: their frames in the order in which they are shown, and a writer whose file is always whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.errors import InputError, OutputError
from onnx_gradcam.photos.decode import MAX_PIXELS, Photo, check_file
from onnx_gradcam.photos.extras import need

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
PART = ".part"
"""What the name of a video ends in while it is written."""
WRITTEN = ".mp4"
ENCODERS = ("libx264", "mpeg4")
"""In the order in which they are tried: the first is not part of every build of FFmpeg."""
QUALITY = {"crf": "18", "preset": "veryfast"}
UNKNOWN_RATE = Fraction(25)


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame of a video.

    Attributes:
        index: its number among all frames, counted from 0.
        seconds: when it is shown.
        photo: (H, W, 3) uint8 RGB, upright.
    """

    index: int
    seconds: float
    photo: Photo


def is_video(path: str | Path) -> bool:
    """Tell by its name whether a file is a video."""
    return Path(path).suffix.lower() in VIDEOS


class Video:
    """A video file that is read from its first frame to its last, as often as wanted.

    Attributes:
        path: of the file.
        every: of so many frames the first is taken.
        rate: how many frames are shown in a second.

    Raises:
        InputError: the file does not exist, is no video, or PyAV is not installed.
    """

    def __init__(self, path: Path, every: int = 1, max_pixels: int = MAX_PIXELS) -> None:
        self._av = need("av", "video", f"'{path}'")
        check_file(path)
        self.path, self.every, self._max_pixels = path, every, max_pixels
        with self._open() as (_, stream):
            self.rate = Fraction(stream.average_rate or UNKNOWN_RATE)
            self._count = int(stream.frames)

    @property
    def count(self) -> int | None:
        """Return how many frames are taken, None where the file does not say how many it has."""
        return -(-self._count // self.every) or None

    def frames(self, broken: Callable[[int, str], None]) -> Iterator[VideoFrame]:
        """Yield the frames that are taken, in the order in which they are shown.

        Args:
            broken: is called with the number of each frame that cannot be decoded, and why; reading goes on.

        Raises:
            InputError: the frames are larger than the limit.
        """
        index = 0
        with self._open() as (container, stream):
            for packet in self._packets(container, stream, broken):
                try:
                    decoded = packet.decode()
                except self._av.error.FFmpegError as error:
                    broken(index, str(error))
                    index += 1
                    continue
                for frame in decoded:
                    if frame.is_corrupt:
                        broken(index, "its data is damaged")
                    elif index % self.every == 0:
                        yield VideoFrame(index, self._seconds(frame, index), self._upright(frame))
                    index += 1

    def _packets(self, container: Any, stream: Any, broken: Callable[[int, str], None]) -> Iterator[Any]:
        """Yield the packets of a stream as far as the file can be read."""
        packets = container.demux(stream)
        for number in itertools.count():
            try:
                packet = next(packets, None)
            except self._av.error.FFmpegError as error:
                broken(number, f"the file cannot be read further: {error}")
                return
            if packet is None:
                return
            yield packet

    def _seconds(self, frame: Any, index: int) -> float:
        return float(index / self.rate) if frame.time is None else float(frame.time)

    def _upright(self, frame: Any) -> Photo:
        if frame.width * frame.height > self._max_pixels:
            hint = f"--max-pixels {frame.width * frame.height}"
            raise InputError(f"'{self.path}' has frames of {frame.width} × {frame.height} pixels", hint=hint)
        photo = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        return np.ascontiguousarray(np.rot90(photo, round(frame.rotation / 90) % 4))

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        try:
            container = self._av.open(str(self.path))
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            hint = f"files ending in {', '.join(VIDEOS)}; copy the file again where it is cut off"
            raise InputError(f"cannot read '{self.path}' as a video: {error}", hint=hint, path=self.path) from None
        with container:
            if not container.streams.video:
                raise InputError(f"'{self.path}' has no pictures", hint="a video", path=self.path)
            yield container, container.streams.video[0]


class VideoWriter:
    """A video that is written frame by frame; however its body ends, the file holds all frames that were written.

    It gets its name when it is whole. Where no frame was written there is no file.

    Args:
        path: of the file.
        rate: how many frames are shown in a second.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._av = need("av", "video", f"'{path}'")
        self.path, self.count, self._rate, self._stream = path, 0, rate.limit_denominator(65535), None
        self._part = path.with_name(path.name + PART)

    def __enter__(self) -> VideoWriter:
        try:
            self._container = self._av.open(str(self._part), "w", format=WRITTEN[1:])
        except (self._av.error.FFmpegError, OSError) as error:
            raise OutputError(f"cannot write '{self.path}': {error}", hint="another folder with -o DIR") from None
        return self

    def write(self, picture: Photo) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, of the size of the first one; its sides are even."""
        if self._stream is None:
            self._stream = self._add_stream(picture.shape[1], picture.shape[0])
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = self.count
        frame.time_base = 1 / self._rate
        self._mux(frame)
        self.count += 1

    def _add_stream(self, width: int, height: int) -> Any:
        name = next(name for name in ENCODERS if name in self._av.codecs_available)
        stream = self._container.add_stream(name, rate=self._rate, options=QUALITY if name == ENCODERS[0] else {})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        return stream

    def _mux(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))  # type: ignore[attr-defined]  # a stream since write()
        except (self._av.error.FFmpegError, OSError) as error:
            raise OutputError(f"cannot write '{self.path}': {error}", hint="free space, or -o DIR") from None

    def __exit__(self, *_: object) -> None:
        try:
            if self._stream is not None:
                self._mux(None)
        finally:
            self._container.close()
        if self.count:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)
