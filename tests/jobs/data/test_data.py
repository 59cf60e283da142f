"""Folders, tables and COCO annotations as samples, and where their objects lie."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from onnx_gradcam.errors import InputError
from onnx_gradcam.jobs.data.reading import read_data
from onnx_gradcam.jobs.data.samples import NamedRegion, Sample, boxes_of, region_of


def photo(path: Path, height: int = 6, width: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))
    return path


def test_folders_may_be_classes(tmp_path: Path) -> None:
    for name in ("cats/tabby/1.png", "cats/2.png"):
        photo(tmp_path / name)
    samples = read_data(tmp_path / "cats")
    assert [(s.path.name, s.label, s.folders) for s in samples] == [
        ("2.png", None, ("cats",)),
        ("1.png", None, ("tabby", "cats")),
    ]


def table(tmp_path: Path, text: str) -> Path:
    (tmp_path / "data.csv").write_text(text, "utf-8")
    return tmp_path / "data.csv"


def test_a_table(tmp_path: Path) -> None:
    lines = [
        "path,label,box,mask,patient",
        "a.png,heart,1 2 3 4,,p1",
        "b.png,,,b-mask.png,p1",
        'a.png,heart,"4,0,6.5,2",,p1',
        "a.png,star,0;0;1;1,,p1",
    ]
    file = table(tmp_path, "\n".join(lines))
    assert read_data(file, "patient") == (
        Sample(tmp_path / "a.png", "heart", boxes=((1, 2, 3, 4), (4, 0, 6.5, 2)), cluster="p1"),
        Sample(tmp_path / "b.png", mask=tmp_path / "b-mask.png", cluster="p1"),
        Sample(tmp_path / "a.png", "star", boxes=((0, 0, 1, 1),), cluster="p1"),
    )


@pytest.mark.parametrize(("text", "cluster", "message"), [
    ("photo,label\na.png,x", None, "no column 'path'"),
    ("path,label\na.png,x", "patient", "no column 'patient'"),
    ("path,box\na.png,3 2 1 4", None, "'3 2 1 4' is no box"),
    ("path,box\na.png,here", None, "'here' is no box"),
    ("path,label\n,x", None, "a line without a path"),
    ("path,label\n", None, "names no photo"),
])  # fmt: skip
def test_a_table_that_cannot_be_used(tmp_path: Path, text: str, cluster: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_data(table(tmp_path, text), cluster)


def coco(tmp_path: Path, **changed: object) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "a.png", "video": "v"}, {"id": 8, "file_name": "b.png", "video": "w"}],
        "categories": [{"id": 1, "name": "heart"}, {"id": 5, "name": "star"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [1, 1, 3, 2], "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
            {"image_id": 7, "category_id": 5, "bbox": [5, 0, 2, 2]},
            {"image_id": 7, "category_id": 1, "bbox": [6, 4, 1, 1], "segmentation": {"counts": "x"}},
        ],
        **changed,
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content), "utf-8")
    return tmp_path / "annotations.json"


def test_coco_has_one_sample_for_each_photo_and_class(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    path = tmp_path / "images" / "a.png"
    assert read_data(coco(tmp_path), "video") == (
        Sample(path, "heart", boxes=((1, 1, 4, 3), (6, 4, 7, 5)), cluster="v"),
        Sample(path, "star", boxes=((5, 0, 7, 2),), cluster="v"),
    )


@pytest.mark.parametrize("changed", [{"images": []}, {"annotations": 3}, {"categories": [{"id": 1}]}])
def test_json_that_is_not_coco(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(InputError, match="holds no annotations of objects"):
        read_data(coco(tmp_path, **changed))


def test_regions(tmp_path: Path) -> None:
    """A box, an outline and a mask of the same pixels."""
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:6] = True
    mask = tmp_path / "mask.png"
    cv2.imwrite(str(mask), expected.astype(np.uint8))
    at = Path("x.png")
    for sample in (
        Sample(at, boxes=((1.6, 1, 6.4, 3),)),
        Sample(at, polygons=((2, 1, 6, 1, 6, 3, 2, 3),)),
        Sample(at, mask=mask),
        Sample(at, boxes=((2, 1, 4, 3), (3, 1, 6, 3))),
    ):
        found = region_of(sample, (6, 8))
        np.testing.assert_array_equal(found, expected, str(sample))
        if not sample.boxes:
            np.testing.assert_array_equal(boxes_of(sample, found), [[2, 1, 6, 3]])
    with pytest.raises(InputError, match="the mask has 8×6 pixels, the photo 5×4"):
        region_of(Sample(at, mask=mask), (4, 5))


def test_a_slanted_outline_has_the_pixels_whose_centres_lie_in_it() -> None:
    """A triangle below the diagonal of 8 × 8 pixels, and a star whose middle is crossed twice."""
    triangle = Sample(Path("x.png"), polygons=((0, 0, 8, 8, 0, 8),))
    np.testing.assert_array_equal(region_of(triangle, (8, 8)), np.tril(np.ones((8, 8), bool), -1))
    bow = region_of(Sample(Path("x.png"), polygons=((0, 0, 4, 4, 4, 0, 0, 4),)), (4, 4))
    assert not bow[0, 1:3].any()
    assert not bow[3, 1:3].any()


def test_a_table_stands_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 names, and '.*data\.csv' is a table"):
        read_data([table(tmp_path, "path\na.png"), tmp_path])


@pytest.mark.parametrize(("cluster", "group", "message"), [
    ("patient", None, "the cluster 'patient' is a column of a table"),
    (None, "ward", "the group 'ward' is a column of a table"),
])  # fmt: skip
def test_photos_have_no_columns(tmp_path: Path, cluster: str | None, group: str | None, message: str) -> None:
    photo(tmp_path / "a.png")
    with pytest.raises(InputError, match=message):
        read_data(tmp_path, cluster, group)


def test_named_regions_of_a_table(tmp_path: Path) -> None:
    lines = [
        "path,label,region:cap,region:sign,ward",
        "a.png,heart,1 2 3 4,masks/a.png,w1",
        "a.png,heart,4 0 6.5 2,,w1",
        "b.png,star,,0 0 1 1,",
    ]
    first, second = read_data(table(tmp_path, "\n".join(lines)), None, "ward")
    assert first.regions == {
        "cap": NamedRegion(((1, 2, 3, 4), (4, 0, 6.5, 2))),
        "sign": NamedRegion(mask=tmp_path / "masks" / "a.png"),
    }
    assert second.regions == {"sign": NamedRegion(((0, 0, 1, 1),))}
    assert (first.group, second.group) == ("w1", None)
    inside = region_of(first.regions["cap"], (6, 8))
    assert np.argwhere(inside).tolist() == [[0, 4], [0, 5], [1, 4], [1, 5], [2, 1], [2, 2], [3, 1], [3, 2]]
    with pytest.raises(InputError, match="'here' is no box"):
        read_data(table(tmp_path, "path,region:cap\na.png,here"))


def test_a_category_of_coco_may_be_a_named_region(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.png", "ward": 3}, {"id": 8, "file_name": "b.png", "ward": 4}],
        "categories": [{"id": 1, "name": "star"}, {"id": 2, "name": "cap", "supercategory": "region"}],
        "annotations": [
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 2, 1]},
            {"image_id": 7, "category_id": 1, "bbox": [1, 1, 2, 2]},
            {"image_id": 7, "category_id": 2, "bbox": [4, 0, 1, 1], "segmentation": [[4, 0, 5, 0, 5, 1]]},
            {"image_id": 8, "category_id": 1, "bbox": [1, 1, 2, 2]},
            {"image_id": 9, "category_id": 2, "bbox": [1, 1, 2, 2]},
        ],
    }
    content["images"].append({"id": 9, "file_name": "c.png", "ward": 4})
    (tmp_path / "data.json").write_text(json.dumps(content), "utf-8")
    first, second, third = read_data(tmp_path / "data.json", None, "ward")
    assert (third.label, third.group, list(third.regions)) == (None, "4", ["cap"])  # no class: explained for the first
    assert (first.label, first.boxes, first.group) == ("star", ((1, 1, 3, 3),), "3")
    assert first.regions == {"cap": NamedRegion(((0, 0, 2, 1), (4, 0, 5, 1)))}
    assert second.regions == {}
