"""Folders in, folders out: names, what is left out, what is there already, and mistakes that are said at once."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import cv2
import dense_kinds
import numpy as np
import onnx
import pytest
from brightness import EXPLAIN, brightness_model
from external import save_beside

from onnx_gradcam.results.journal import MANIFEST

OUT = Path("onnx-gradcam-out", "model-gradcam")


def manifest(folder: Path = OUT) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    return content


def arrays(folder: Path = OUT) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.npy"))


def photo(path: str, column: int = 20) -> None:
    pixels = np.full((120, 160, 3), 30, np.uint8)
    pixels[50:70, column - 10 : column + 10] = 255
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(path, pixels)


def test_subfolders_and_formats(run: Any, folder: Path) -> None:
    for name in ("photos/cats/a.tif", "photos/cats/b.jp2", "photos/dogs/left.png", "photos/cats/old/c.bmp"):
        photo(name)
    Path("photos/notes.txt").write_text("notes")
    Path("photos/cats/data.csv").write_text("1,2")
    status, _, err = run(*EXPLAIN, "--target", "0")
    assert status == 0
    names = ["cats/a", "cats/b", "cats/old/c", "dogs/left", "left", "right"]
    assert arrays() == [f"{name}.gradcam.0.npy" for name in names]
    assert "left out: 1 .csv, 1 .txt" in err
    assert manifest()["left_out"] == {".txt": 1, ".csv": 1}
    assert run("explain", "--from", str(OUT / MANIFEST))[0] == 0


def test_results_among_the_photos_are_no_photos(run: Any, folder: Path) -> None:
    everything = ("explain", "model.onnx", ".", "--preprocess", "good.json")
    assert run(*everything)[0] == 0
    assert run(*everything, "--method", "layercam")[0] == 0
    assert manifest(Path("onnx-gradcam-out", "model-layercam"))["left_out"]["folders of results"] == 1
    for mode in ("--resume", "--overwrite"):
        photos = ("explain", "model.onnx", "photos", "--preprocess", "good.json", "-o", "photos")
        assert run(*photos, mode)[0] == 0
        assert [result["stem"] for result in manifest(Path("photos"))["results"]] == ["left", "right"]


def test_resuming(run: Any, folder: Path) -> None:
    assert run("explain", "model.onnx", "photos/left.png", "--preprocess", "good.json")[0] == 0
    before = (OUT / "left.gradcam.0.npy").stat().st_mtime_ns
    status, out, err = run(*EXPLAIN, "--resume")
    assert status == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == [str(Path("photos/right.png"))]
    assert "1 images were there already" in err
    assert (OUT / "left.gradcam.0.npy").stat().st_mtime_ns == before
    assert manifest()["request"]["images"] == ["photos/left.png", "photos"]
    assert [result["stem"] for result in manifest()["results"]] == ["left", "right"]
    photo("photos/left.png", 140)  # another photo under the same name
    Path("photos/right.png").unlink()  # gone: its results stay
    assert run(*EXPLAIN, "--resume")[0] == 0
    assert [result["stem"] for result in manifest()["results"]] == ["right", "left"]
    np.testing.assert_array_equal(np.load(OUT / "left.gradcam.0.npy"), np.load(OUT / "right.gradcam.0.npy"))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--target", "0"], "targets was ['top1'] and is ['0']"),
        (["--signed"], "signed was False and is True"),
        (["--preprocess", "other.json"], "preprocess was 'good.json' and is 'other.json'"),
        (["--fusion", "max"], "fusion was 'mean' and is 'max'"),
    ],
)
def test_resuming_another_request_is_refused(run: Any, folder: Path, changed: list[str], named: str) -> None:
    Path("other.json").write_text(Path("good.json").read_text().replace('"pad": 0', '"pad": 9'))
    run(*EXPLAIN)
    before = (OUT / MANIFEST).read_bytes()
    status, _, err = run(*EXPLAIN, *changed, "--resume")
    assert status == 2
    assert named in err
    assert (OUT / MANIFEST).read_bytes() == before
    Path("good.json").write_text(Path("other.json").read_text())
    assert "the file 'good.json' was" in run(*EXPLAIN, "--resume")[2]


def test_weights_in_another_file_are_part_of_the_model(run: Any, folder: Path) -> None:
    """The model file itself stays the same where its weights are trained on."""
    save_beside(folder, brightness_model())
    assert run(*EXPLAIN)[0] == 0
    assert manifest()["files_read"]["model.bin"] == hashlib.sha256(Path("model.bin").read_bytes()).hexdigest()
    assert run(*EXPLAIN, "--resume")[0] == 0
    data = bytearray(Path("model.bin").read_bytes())
    data[-8] ^= 1
    Path("model.bin").write_bytes(data)
    status, _, err = run(*EXPLAIN, "--resume")
    assert status == 2
    assert "the file 'model.bin' was" in err


def test_another_run_takes_nothing_away(run: Any, folder: Path) -> None:
    run(*EXPLAIN, "-o", "out")
    Path("out/mine.png").write_bytes(b"mine")
    status, _, err = run("explain", "model.onnx", "photos/gone.png", "-o", "out", "--overwrite")
    assert status == 2
    assert "no such file" in err
    assert len(manifest(Path("out"))["results"]) == 2
    assert run("explain", "model.onnx", "photos/left.png", "-o", "out", "--overwrite", "--target", "1")[0] == 0
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == ["left.gradcam.1.npy", "left.gradcam.1.png", "manifest.json", "mine.png"]


def test_a_target_that_is_requested_twice(run: Any, folder: Path) -> None:
    status, out, _ = run("explain", "model.onnx", "photos/left.png", "--target", "0", "--target", "0")
    assert status == 0
    assert len(set(arrays())) == len(out.splitlines()) == 2


def test_a_long_name_and_one_that_is_no_text(run: Any, folder: Path) -> None:
    photo(f"photos/{'x' * 240}.png")
    if sys.platform == "linux":
        Path("photos/left.png").rename(os.fsdecode(b"photos/left-\xff.png"))
    status, out, _ = run(*EXPLAIN, "--json")
    assert status == 0
    assert len(json.loads(out)["results"]) == 3
    assert max(len(name.encode("utf-8", "surrogateescape")) for name in arrays()) < 200
    assert run("explain", "--from", str(OUT / MANIFEST))[0] == 0


def test_classes_from_folders(run: Any, folder: Path) -> None:
    Path("labels.txt").write_text("bright\ndark\n")
    photo("classes/bright/1.png")
    photo("classes/dark/1.png")
    photo("classes/2.png")
    status, out, err = run(
        "explain", "model.onnx", "classes", "--preprocess", "good.json", "--labels", "labels.txt", "--true", "folder"
    )
    assert status == 2
    assert [line.split("  ")[1] for line in out.splitlines()] == [
        "predicted bright, runner-up dark",
        "predicted bright, true dark",
    ]
    assert "'2.png' lies in no folder with the name of a class" in err
    assert run("explain", "--from", str(OUT / MANIFEST))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photos/left.png", "model.onnx"), "MODEL comes first: model.onnx photos/left.png"),
        (("photos", "model.onnx"), "MODEL comes first: model.onnx photos"),
        (("gone.onnx", "photos", "--fusion", "sum"), "unknown fusion 'sum'"),
        (("gone.onnx", "photos", "--provider", "cdua"), "unknown execution provider 'cdua'"),
        (("gone.onnx", "photos", "--labels", "gone.txt"), "cannot read the labels 'gone.txt'"),
        (("gone.onnx", "photos", "--preprocess", "imagnet"), "unknown preprocessing 'imagnet'"),
        (("gone.onnx", "photos", "--method", "gradcm"), "unknown method 'gradcm'"),
        (("gone.onnx", "photos", "--input", "x=gone.npy"), "no such file: 'gone.npy'"),
        (("gone.onnx", "photos", "--true", "gone.csv"), "cannot be read"),
        (("gone.onnx", "gone.png"), "no such file: 'gone.png'"),
        (("gone.onnx", "photos"), "no such model file: 'gone.onnx'"),
        (("photos/left.png", "photos/left.png"), "photos/left.png"),
        (("model.onnx", ""), "an image has no name"),
        (("model.onnx", "x" * 300), "File name too long"),
        (("model.onnx", "photos", "--preprocess", "x" * 300), "unknown preprocessing 'xxx"),
        (("model.onnx", "photos", "-o", "x" * 300), "File name too long"),
    ],
)
def test_the_real_mistake_is_said_first(run: Any, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    """The folder of results exists: that is not what is wrong."""
    run(*EXPLAIN, "-o", "out")
    out_option = () if "-o" in arguments else ("-o", "out")
    status, out, err = run("explain", *arguments, *out_option)
    assert (status, out) == (2, "")
    assert message in err
    assert "already holds" not in err


def test_loudness_after_the_command(run: Any, folder: Path) -> None:
    guessed = ("explain", "model.onnx", "photos")
    for number, arguments in enumerate([("-q", *guessed), (*guessed, "-q"), ("explain", "--quiet", *guessed[1:])]):
        assert run(*arguments, "-o", f"quiet{number}")[2] == ""
    assert "guessed" in run(*guessed, "-o", "loud")[2]
    assert "'model': 'model.onnx'" in run(*guessed, "-o", "louder", "-v")[2]
    assert "'model': 'model.onnx'" in run("-v", *guessed, "-o", "loudest")[2]
    assert run("inspect", "model.onnx", "-q")[0] == 0


def test_the_pixel_limit(run: Any, folder: Path) -> None:
    status, out, err = run(*EXPLAIN[:2], "photos/left.png", "photos/right.png", "--max-pixels", "19199")
    assert status == 2
    assert "160 × 120 pixels, more than the limit of 19,199" in err
    photo("photos/small.png")
    cv2.imwrite("photos/small.png", np.full((20, 20, 3), 200, np.uint8))
    status, out, err = run(*EXPLAIN, "--max-pixels", "19199")
    assert status == 2
    assert len(out.splitlines()) == 1
    assert [error["image"] for error in manifest()["errors"]] == [
        str(Path("photos", n)) for n in ("left.png", "right.png")
    ]
    assert run(*EXPLAIN, "--max-pixels", "19200", "--resume")[0] == 0


def test_what_a_manifest_records(run: Any, folder: Path) -> None:
    Path("labels.txt").write_text("bright\ndark\n")
    assert run(*EXPLAIN, "--labels", "labels.txt")[0] == 0
    said = manifest()
    for name in ("labels.txt", "good.json"):
        assert said["files_read"][name] == hashlib.sha256(Path(name).read_bytes()).hexdigest()
    written = {name: digest for result in said["results"] for name, digest in result["files"].items()}
    assert written == {
        path.relative_to(OUT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in OUT.rglob("*")
        if path.name != MANIFEST
    }
    assert said["python"] == platform.python_version()
    assert said["platform"] == platform.platform()
    assert said["time"]["started"].endswith("+00:00")


def test_the_method_of_the_default_is_named(run: Any, folder: Path) -> None:
    """In folder, file and manifest; repeating the manifest repeats what was taken."""
    onnx.save(dense_kinds.model(dense_kinds.KINDS["centernet"].write), "dense.onnx")
    line = ("explain", "dense.onnx", "photos/left.png", "--preprocess", "zero-one", "--target", "0")
    status, _, err = run(*line)
    assert status == 0, err
    assert "dense score: hirescam; --method gradcam gives Grad-CAM" in err
    out = folder / "onnx-gradcam-out" / "dense-hirescam"
    assert {p.name for p in out.iterdir()} == {"left.hirescam.0.npy", "left.hirescam.0.png", MANIFEST}
    content = manifest(out)
    assert content["request"]["method"] == content["method"] == "hirescam"
    assert run("explain", "--from", str(out / MANIFEST))[0] == 0
    assert run(*EXPLAIN, "--target", "0")[0] == 0
    assert (folder / "onnx-gradcam-out" / "model-gradcam" / MANIFEST).is_file()
