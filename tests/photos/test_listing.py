"""The images of a run: files, folders with all below them, globs; and what was left out."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from onnx_gradcam.errors import InputError
from onnx_gradcam.photos.decode import decode
from onnx_gradcam.photos.listing import FORMATS, describe, find_images, is_readable, list_images


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_folders_and_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "b.JPG", "a.png", "c.npy", "notes.txt", "._a.png", "x[1].png", "sub/d.webp", "empty/notes.txt")
    folder = [tmp_path / n for n in ("a.png", "b.JPG", "c.npy", "sub/d.webp", "x[1].png")]
    assert list_images([str(tmp_path)]) == folder
    assert list_images([str(tmp_path / "*.png")]) == [tmp_path / "a.png", tmp_path / "x[1].png"]
    assert list_images([str(tmp_path / "**" / "*.webp")]) == [tmp_path / "sub" / "d.webp"]
    assert list_images([str(tmp_path / "x[1].png")]) == [tmp_path / "x[1].png"]  # a file of that name, no glob
    named = [tmp_path / "notes.txt", tmp_path / "gone.png"]
    assert list_images(list(map(str, named))) == named
    assert list_images([str(tmp_path / "b.JPG"), str(tmp_path)]) == [folder[1], folder[0], *folder[2:]]
    monkeypatch.chdir(tmp_path)
    assert list_images(["*.png"]) == [Path("a.png"), Path("x[1].png")]
    for paths, what in {
        ("empty",): "no images in folder 'empty'",
        ("*.gif",): r"'\*.gif'",
        (): "no images",
    }.items():
        with pytest.raises(InputError, match=what):
            list_images(paths)


def test_names_keep_the_path_below_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "cats/tabby/1.jpg", "cats/2.tar.jpg", "dogs/1.jpg", "z.png")
    monkeypatch.chdir(tmp_path)

    def names(*paths: str) -> list[str]:
        return [image.name for image in find_images(paths).images]

    assert names("cats") == ["2.tar", "tabby/1"]
    assert names(".") == ["cats/2.tar", "cats/tabby/1", "dogs/1", "z"]
    assert names("cats", "dogs") == ["cats/2.tar", "cats/tabby/1", "dogs/1"]  # below what they have in common
    assert names("cats/tabby/1.jpg", "dogs") == ["1", "1"]
    assert names("**/*.jpg") == ["cats/2.tar", "cats/tabby/1", "dogs/1"]
    monkeypatch.chdir(tmp_path / "cats")
    assert names("../dogs", "tabby") == ["1", "tabby/1"]  # never a name that leads out of the folder of results
    assert names("..") == ["cats/2.tar", "cats/tabby/1", "dogs/1", "z"]


def test_folders_of_an_image_from_the_inside_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "train/tabby/day1/1.jpg")
    monkeypatch.chdir(tmp_path)
    folders = {
        path: find_images([path]).images[0].folders for path in ("train", "train/tabby", "train/tabby/day1/1.jpg")
    }
    assert folders == {
        "train": ("day1", "tabby", "train"),
        "train/tabby": ("day1", "tabby"),
        "train/tabby/day1/1.jpg": ("day1",),
    }
    monkeypatch.chdir(tmp_path / "train" / "tabby")
    assert find_images(["."]).images[0].folders == ("day1", "tabby")


def test_links_pipes_and_hidden_files(tmp_path: Path) -> None:
    """A loop ends, a folder that two paths lead to is taken once, a pipe is never opened; each is counted."""
    touch(tmp_path, "a/1.png", "a/.hidden.png", ".cache/2.png", "b/notes.md", "b/README", "b/more.md", "done/3.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b" / "one.png").symlink_to(tmp_path / "a" / "1.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    listing = find_images([str(tmp_path)], are_results=lambda folder: folder.name == "done")
    assert [image.path for image in listing.images] == [tmp_path / "a" / "1.png", tmp_path / "b" / "one.png"]
    assert listing.left_out == {
        "hidden": 2,
        ".md": 2,
        "without suffix": 1,
        "folders of results": 1,
        "broken links, pipes or devices": 2,
    }
    assert describe({".txt": 3, "hidden": 1}) == "left out: 3 .txt, 1 hidden"
    assert describe({}) == ""


def test_a_linked_folder_outside_is_followed(tmp_path: Path) -> None:
    touch(tmp_path, "data/cats/1.png", "run/x.txt")
    (tmp_path / "run" / "photos").symlink_to(tmp_path / "data", target_is_directory=True)
    assert [image.name for image in find_images([str(tmp_path / "run")]).images] == ["photos/cats/1"]


def test_every_format_that_the_decoders_read_is_taken(tmp_path: Path) -> None:
    """What OpenCV can write and read here is taken from a folder, as the photo that it holds."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    taken = [suffix for suffix in FORMATS if cv2.haveImageWriter(f"x{suffix}")]
    assert {".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm"} <= set(taken)
    for suffix in taken:
        cv2.imwrite(str(tmp_path / f"photo{suffix}"), pixels)
    cv2.imwrite(str(tmp_path / "photo.hdr"), pixels.astype(np.float32))
    listing = find_images([str(tmp_path)])
    assert [image.path.suffix for image in listing.images] == sorted(taken)
    assert listing.left_out == {".hdr": 1}  # of floats: it can be decoded, and is no photo
    assert {decode(image.path).shape for image in listing.images} == {(40, 50, 3)}
    assert not is_readable(".heic")
