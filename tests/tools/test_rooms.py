"""The import contract by rooms: what a line allows, what it does not, and that the package keeps it."""

import tomllib
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="import-linter: not installed")
from rooms import is_allowed, parse, reach

TABLE = parse(["errors:", "graph: errors", "photos: errors", "targets: graph photos.geometry", "engine: targets"])


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("graph.load", "errors"),
        ("graph.load", "graph.builder"),
        ("targets", "errors"),
        ("targets.boxes", "photos.geometry"),
        ("engine.session", "targets.kinds"),
        ("engine.session", "errors"),
        ("engine.session", ""),
        ("", "engine.session"),
        ("__main__", "engine.session"),
    ],
)
def test_what_a_line_names_and_what_that_may_import_is_allowed(importer: str, imported: str) -> None:
    assert is_allowed(importer, imported, TABLE)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("errors", "graph.load"),
        ("graph.load", "targets"),
        ("targets.boxes", "photos.decode"),
        ("targets.boxes", "photos.geometry_of_others"),
        ("photos.decode", "graph.load"),
        ("attic.new", "errors"),
        ("graph.load", "attic.new"),
    ],
)
def test_everything_else_is_forbidden(importer: str, imported: str) -> None:
    assert not is_allowed(importer, imported, TABLE)


def test_every_room_of_the_package_has_a_line_and_no_circle() -> None:
    root = Path(__file__).parents[2]
    contracts = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    rooms = parse(contracts[0]["rooms"])
    package = root / "onnx_gradcam"
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(rooms) == folders | {"errors"}
    assert all(room not in {name.split(".")[0] for name in reach(room, rooms)} for room in rooms)
