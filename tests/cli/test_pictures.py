"""The options of pictures on the command line: scale, photo, colours, caption, contact sheet."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from brightness import EXPLAIN
from repository import DOCS

OUT = "onnx-gradcam-out/model-gradcam"


@pytest.fixture
def faint(folder: Path) -> Path:
    """A third photo, half as bright: its cam is half as large."""
    photo = cv2.imread(str(folder / "photos" / "left.png"))
    cv2.imwrite(str(folder / "photos" / "faint.png"), photo // 2)
    return folder


def rows_of(manifest: str) -> dict[str, dict[str, Any]]:
    content = json.loads(manifest)
    jsonschema.validate(content, json.loads((DOCS / "manifest.schema.json").read_text("utf-8")))
    return {Path(result["image"]).stem: result["rows"][0] for result in content["results"]}


def map_of(folder: Path, row: dict[str, Any]) -> np.ndarray:
    values: np.ndarray = np.load(folder / OUT / row["npy"])
    return values


def png_of(folder: Path, row: dict[str, Any]) -> np.ndarray:
    picture = cv2.imread(str(folder / OUT / row["png"]))
    return picture[:, :, ::-1].astype(int)


def test_each_file_has_its_own_scale_by_default(faint: Path, run: Any) -> None:
    status, out, _ = run(*EXPLAIN, "--json")
    assert status == 0
    rows = rows_of(out)
    assert rows["faint"]["scale"] == pytest.approx(rows["left"]["scale"] / 2, rel=0.03)
    assert all(map_of(faint, row).max() == 1 for row in rows.values())


def test_one_scale_for_all_files(faint: Path, run: Any) -> None:
    """Half the evidence is half as bright, in the picture and in the array, and the manifest names the scale."""
    own = rows_of(run(*EXPLAIN, "--json")[1])
    cams = {stem: map_of(faint, row) * row["scale"] for stem, row in own.items()}
    bright = png_of(faint, own["faint"]).sum()
    status, out, _ = run(*EXPLAIN, "--scale", "shared", "--json", "--overwrite")
    assert status == 0
    rows = rows_of(out)
    assert json.loads(out)["request"]["scale"] == "shared"
    assert {row["scale"] for row in rows.values()} == {max(row["scale"] for row in own.values())}
    for stem, row in rows.items():
        np.testing.assert_allclose(map_of(faint, row) * row["scale"], cams[stem], atol=1e-6)
    assert map_of(faint, rows["faint"]).max() == pytest.approx(0.5, rel=0.03)
    assert png_of(faint, rows["faint"]).sum() < bright
    assert run("explain", "--from", f"{OUT}/manifest.json")[0] == 0


def test_a_number_as_scale(faint: Path, run: Any) -> None:
    own = rows_of(run(*EXPLAIN, "--json")[1])
    number = own["left"]["scale"] / 2
    status, out, _ = run(*EXPLAIN, "--scale", repr(number), "--json", "--overwrite")
    assert status == 0
    rows = rows_of(out)
    assert [row["scale"] for row in rows.values()] == pytest.approx([number] * 3)
    assert rows["left"]["cautions"] == [f"values above {number:.3g} have the same colour"]
    assert map_of(faint, rows["left"]).max() == 1
    assert (map_of(faint, rows["left"]) == 1).mean() > 0.01
    status, out, _ = run("explain", "--from", f"{OUT}/manifest.json")
    assert status == 0, out


def test_maps_of_two_sides_share_the_scale_of_a_run(faint: Path, run: Any) -> None:
    status, out, _ = run(*EXPLAIN, "--both", "--scale", "shared", "--json")
    assert status == 0
    scales = {row["scale"] for result in json.loads(out)["results"] for row in result["rows"]}
    assert len(scales) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--scale", "big"), "unknown scale 'big'"),
        (("--scale", "0"), "unknown scale '0'"),
        (("--scale", "nan"), "unknown scale 'nan'"),
        (("--colormap", "virdis"), "'viridis'"),
        (("--photo", "sepia"), "'colour', 'grey'"),
        (("--alpha", "1.5"), "a number from 0 to 1"),
    ],
)
def test_words_are_checked_before_anything_is_read(folder: Path, run: Any, words: tuple[str, ...], says: str) -> None:
    status, out, err = run("explain", "no-such-model.onnx", "photos", *words)
    assert (status, out) == (2, "")
    assert says in err
    assert not (folder / "onnx-gradcam-out").exists()


def test_the_overlay_alone_over_the_photo_in_colour_or_grey(folder: Path, run: Any) -> None:
    blue = cv2.imread(str(folder / "photos" / "left.png"))
    blue[:, :, 0] = 200
    cv2.imwrite(str(folder / "photos" / "left.png"), blue)
    bare = (*EXPLAIN, "--no-caption", "--alpha", "0", "--json", "--overwrite")
    in_colour = png_of(folder, rows_of(run(*bare)[1])["left"])
    assert in_colour.shape == (336, 448, 3), "160 × 120 enlarged, and nothing around it"
    np.testing.assert_array_equal(in_colour[-20, -20], blue[-1, -1, ::-1])
    in_grey = png_of(folder, rows_of(run(*bare, "--photo", "grey")[1])["left"])
    assert np.ptp(in_grey, axis=2).max() == 0
    under_two_colours = png_of(folder, rows_of(run(*bare, "--signed")[1])["left"])
    np.testing.assert_array_equal(under_two_colours, in_grey)
    captioned = png_of(folder, rows_of(run(*EXPLAIN, "--json", "--overwrite")[1])["left"])
    assert captioned.shape[0] > 336 + 60


def test_colours_and_opacity(folder: Path, run: Any) -> None:
    """At full opacity the strongest place has the last colour of the map: viridis ends in yellow (253, 231, 37)."""
    words = ("--no-caption", "--colormap", "viridis", "--alpha", "1", "--json")
    picture = png_of(folder, rows_of(run(*EXPLAIN, *words)[1])["left"])
    assert np.abs(picture - (253, 231, 37)).max(axis=2).min() <= 3
    words = ("--no-caption", "--alpha", "0", "--json", "--overwrite")
    picture = png_of(folder, rows_of(run(*EXPLAIN, *words)[1])["left"])
    photo = cv2.imread(str(folder / "photos" / "left.png"))
    np.testing.assert_array_equal(picture[14::28, 14::28], photo[5::10, 5::10][: len(picture[14::28])])


def test_a_contact_sheet(faint: Path, run: Any) -> None:
    """It is named by the manifest with its hash, and goes with the results when they are replaced."""
    status, out, _ = run(*EXPLAIN, "--sheet")
    assert status == 0
    assert out.splitlines()[-1] == f"contact sheet  {OUT}/sheet.png"
    manifest = json.loads((faint / OUT / "manifest.json").read_text("utf-8"))
    data = (faint / OUT / "sheet.png").read_bytes()
    assert manifest["sheets"] == {"sheet.png": hashlib.sha256(data).hexdigest()}
    status, out, _ = run(*EXPLAIN, "--json", "--overwrite")
    assert json.loads(out)["sheets"] == {}
    assert not (faint / OUT / "sheet.png").exists()


def test_a_resumed_run_has_a_whole_contact_sheet(faint: Path, run: Any) -> None:
    assert run(*EXPLAIN, "--sheet", "--scale", "shared")[0] == 0
    whole = (faint / OUT / "sheet.png").read_bytes()
    for file in (faint / OUT).glob("left*"):
        file.unlink()
    status, _, err = run(*EXPLAIN, "--sheet", "--scale", "shared", "--resume")
    assert status == 0, err
    assert "2 images were there already" in err
    assert (faint / OUT / "sheet.png").read_bytes() == whole
    assert len(list((faint / OUT).glob("left*.npy"))) == 1


def test_a_resumed_run_at_one_scale_writes_anew_what_has_another(faint: Path, run: Any) -> None:
    """A brighter photo comes: the scale of all maps grows, also of those that are there."""
    (faint / "photos" / "left.png").rename(faint / "left.png")
    (faint / "photos" / "right.png").unlink()
    first = rows_of(run(*EXPLAIN, "--scale", "shared", "--json")[1])
    (faint / "left.png").rename(faint / "photos" / "left.png")
    status, out, err = run(*EXPLAIN, "--scale", "shared", "--resume", "--json")
    assert status == 0, err
    rows = rows_of(out)
    assert rows["faint"]["scale"] == rows["left"]["scale"] > first["faint"]["scale"]
    assert map_of(faint, rows["faint"]).max() == pytest.approx(0.5, rel=0.03)


def test_pages_of_a_contact_sheet(faint: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_gradcam.jobs.pictures.PAGE", 2)
    status, out, _ = run(*EXPLAIN, "--sheet")
    assert status == 0
    assert [line.split("/")[-1] for line in out.splitlines()[-2:]] == ["sheet.png", "sheet-2.png"]


def test_the_demo_has_one_scale(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The map of a class of p 0.007 does not glow like that of a class of p 0.976, unless that is what was wanted."""
    monkeypatch.chdir(tmp_path)

    def peaks(*words: str) -> dict[str, float]:
        status, out, _ = run("demo", "--json", *words)
        assert status == 0
        rows = [row for result in json.loads(out)["results"] for row in result["rows"]]
        return {row["png"]: float(np.load(tmp_path / "onnx-gradcam-out" / "demo" / row["npy"]).max()) for row in rows}

    shared = peaks()
    assert shared["cross.gradcam.4.png"] > 0.5
    assert shared["cross.gradcam.7.png"] < 0.2
    assert set(peaks("--scale", "image").values()) == {1.0}
