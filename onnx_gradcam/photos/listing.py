"""The images that files, folders and globs name, and what lies beside them in the folders."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos.decode import VOLUMES, decode
from onnx_gradcam.photos.dicom import DICOM
from onnx_gradcam.photos.extras import is_installed
from onnx_gradcam.photos.opencv import cv2

ARRAYS = ".npy"
GZIP = ".gz"
HIDDEN = "hidden"
SAMPLE = np.zeros((64, 64, 3), np.uint8)  # JPEG 2000 needs some pixels for its resolutions
FORMATS: Mapping[str, tuple[str, ...]] = {
    ".jpg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    ".png": (".png", ".apng"),
    ".webp": (".webp",),
    ".gif": (".gif",),
    ".bmp": (".bmp", ".dib"),
    ".tif": (".tif", ".tiff"),
    ".avif": (".avif",),
    ".jp2": (".jp2", ".j2k", ".j2c", ".jpc"),
    ".ppm": (".ppm", ".pgm", ".pbm", ".pnm"),
    ".pam": (".pam",),
    ".ras": (".ras", ".sr"),
}
"""The suffix of a format by which OpenCV writes it → all suffixes of its files."""


@dataclass(frozen=True)
class Listed:
    """An image of a run.

    Attributes:
        path: where it lies.
        name: its path below the folder that was named, without suffix, with slashes: "cats/tabby". For a file that was
            named itself, the name of the file.
        folders: the folders in which it lies, from the innermost to the one that was named; of a file that was named
            itself, its folder.
    """

    path: Path
    name: str
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """What files, folders and globs name.

    Attributes:
        images: photos, volumes and .npy arrays, each once.
        left_out: what was met in folders and not taken, by its kind (".txt", "hidden", "results") with its number.
    """

    images: tuple[Listed, ...]
    left_out: Mapping[str, int]


def list_images(
    paths: Sequence[str | os.PathLike[str]], are_results: Callable[[Path], bool] = lambda _: False
) -> list[Path]:
    """Return the files that ``paths`` name, each once; see ``find_images``."""
    return [image.path for image in find_images(paths, are_results).images]


def find_images(
    paths: Sequence[str | os.PathLike[str]], are_results: Callable[[Path], bool] = lambda _: False
) -> Listing:
    """Return the images that files, folders and globs name, and what in the folders was left out.

    Args:
        paths: files, folders (with their subfolders, each real folder once, so that links cannot lead in circles) and
            globs. A file that does not exist is in the list all the same: later it fails alone, and not the whole list.
        are_results: tells of a subfolder whether it holds results of this tool; such a folder is left out.

    Raises:
        InputError: a folder without images, a glob without files, or no paths at all.
    """
    names = [os.fspath(path) for path in paths]
    for name in names:
        _check_name(name)
    base = _common(name for name in names if Path(name).is_dir())
    left_out: Counter[str] = Counter()
    images: dict[Path, Listed] = {}
    for name in names:
        for image in _expand(name, base, are_results, left_out):
            images.setdefault(image.path, image)
    if not images:
        raise InputError("no images given", hint="name a file, a folder or a glob such as 'photos/*.jpg'")
    return Listing(tuple(images.values()), dict(left_out))


@functools.cache
def is_readable(suffix: str) -> bool:
    """Tell whether files with this suffix can be read with what is installed: photos, volumes, and ".npy" arrays."""
    if suffix == ARRAYS:
        return True
    if suffix in VOLUMES:
        return is_installed("nibabel")
    if suffix == DICOM:
        return is_installed("pydicom")
    writer = next((first for first, suffixes in FORMATS.items() if suffix in suffixes), "")
    if not writer or not cv2.haveImageWriter(f"x{writer}"):
        return False
    try:
        return decode(cv2.imencode(writer, SAMPLE)[1].tobytes()).shape == SAMPLE.shape
    except InputError:
        return False


def readable_suffixes() -> tuple[str, ...]:
    """Return the suffixes of all files that are taken from a folder."""
    return (
        *filter(is_readable, [*(suffix for suffixes in FORMATS.values() for suffix in suffixes), *VOLUMES, DICOM]),
        ARRAYS,
    )


def suffix_of(path: Path) -> str:
    """Return the suffix of a file in lower case, with the one before a ".gz".

    >>> suffix_of(Path("brain.1.NII.GZ")), suffix_of(Path("cat.jpg"))
    ('.nii.gz', '.jpg')
    """
    last = path.suffix.lower()
    return f"{path.with_suffix('').suffix.lower()}{GZIP}" if last == GZIP else last


def without_suffix(path: Path) -> Path:
    """Return a path without what ``suffix_of`` returns."""
    return path.with_name(path.name[: len(path.name) - len(suffix_of(path))])


def _check_name(name: str) -> None:
    """Raise ``InputError`` for what cannot be a path; a path where nothing lies is one."""
    if not name:
        raise InputError("an image has no name: the text is empty", hint="'.' is the folder where you are")
    try:
        Path(name).stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read '{name}': {error}", hint="a file, a folder or a glob", path=name) from None


def _common(folders: Iterator[str]) -> str | None:
    """Return the folder below which several folders lie, None for a single one and where there is no such folder."""
    several = list(folders)
    if len(several) < 2:
        return None
    try:
        return os.path.commonpath(several)
    except ValueError:  # absolute and relative ones, or several drives
        return None


def _expand(
    name: str, base: str | None, are_results: Callable[[Path], bool], left_out: Counter[str]
) -> Iterator[Listed]:
    path = Path(name)
    if path.is_dir():
        files = sorted(_walk(path, are_results, left_out))
    elif path.exists() or not any(c in name for c in "*?["):
        yield _listed(path, path.parent, path.parent)
        return
    else:  # shells on Windows leave globs to the program
        root = Path(path.anchor)
        matches = root.glob(str(path.relative_to(root)))
        files = sorted(file for file in matches if _is_taken(file, left_out))
        path = _fixed(path)
    if not files:
        what = f"no images in folder '{name}'" if path.is_dir() and str(path) == name else f"no file matches '{name}'"
        hint = f"images are files ending in {', '.join(readable_suffixes())}"
        raise InputError(what, where=describe(left_out), hint=hint, path=name)
    for file in files:
        yield _listed(file, path, Path(path if base is None else base))


def of_file(path: Path) -> Listed:
    """Return a file by itself, with all folders above it."""
    return Listed(
        path, without_suffix(path).name, tuple(folder.name for folder in path.absolute().parents if folder.name)
    )


def describe(left_out: Mapping[str, int]) -> str:
    """Return what was left out in words, "" for nothing."""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    return f"left out: {', '.join(f'{count} {kind}' for kind, count in kinds)}" if kinds else ""


def _fixed(pattern: Path) -> Path:
    """Return the folders of a glob before its first wildcard."""
    fixed = next(k for k, part in enumerate(pattern.parts) if any(c in part for c in "*?["))
    return Path(*pattern.parts[:fixed])


def _listed(file: Path, named: Path, base: Path) -> Listed:
    """Return a file with its name below ``base``, or below the folder that was named where it does not lie there."""
    above = (base, named, file.parent)
    inside = next(b for b in above if b in file.parents and ".." not in file.relative_to(b).parts)
    depth = len(file.parent.relative_to(named).parts) if named in file.parents else 0
    folders = [file.parent, *file.parent.parents][: depth + 1]
    names = tuple((folder.resolve() if folder.name in ("", "..") else folder).name for folder in folders)
    return Listed(file, without_suffix(file).relative_to(inside).as_posix(), names)


def _walk(folder: Path, are_results: Callable[[Path], bool], left_out: Counter[str]) -> Iterator[Path]:
    """Yield the images in a folder and all below it; links to folders are followed last, and each folder once."""
    waiting, visited = [folder], set()

    def fail(error: OSError) -> None:
        left_out["folders that cannot be read"] += 1

    while waiting:
        for base, subfolders, files in os.walk(waiting.pop(0), onerror=fail):
            state = Path(base).stat()
            if (state.st_dev, state.st_ino) in visited:
                subfolders.clear()
                continue
            visited.add((state.st_dev, state.st_ino))
            paths = [Path(base, name) for name in subfolders]
            kept = [path for path in paths if _is_entered(path, are_results, left_out)]
            subfolders[:] = [path.name for path in kept if not path.is_symlink()]
            waiting += [path for path in kept if path.is_symlink()]
            yield from (path for name in files if _is_taken(path := Path(base, name), left_out))


def _is_entered(folder: Path, are_results: Callable[[Path], bool], left_out: Counter[str]) -> bool:
    kind = HIDDEN if folder.name.startswith(".") else "folders of results" if are_results(folder) else ""
    left_out.update([kind] if kind else [])
    return not kind


def _is_taken(file: Path, left_out: Counter[str]) -> bool:
    kind = _other_kind(file)
    left_out.update([kind] if kind else [])
    return not kind and not file.is_dir()


def _other_kind(file: Path) -> str:
    """Return what a file is that is no image; "" for an image, and for a folder, which a glob may name."""
    suffix = suffix_of(file)
    if file.is_dir():
        return ""
    if file.name.startswith("."):
        return HIDDEN
    if not is_readable(suffix):
        return suffix or "without suffix"
    return "" if file.is_file() else "broken links, pipes or devices"
