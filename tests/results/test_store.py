"""A folder of results loses nothing and names everything, at whatever moment its run is stopped."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_gradcam.errors import InputError, OutputError
from onnx_gradcam.results import files
from onnx_gradcam.results.journal import JOURNAL, MANIFEST, holds_results, read_state
from onnx_gradcam.results.store import Mode, Store

IMAGES = ("a", "cats/b", "c")
TWO = IMAGES[:2]
RUN = {"request": {"images": list(IMAGES)}, "files_read": {}}


@dataclass(frozen=True)
class Small:
    """A result of two rows, with one map of two numbers each."""

    number: float
    warnings: Sequence[str] = ()
    provenance: Any = field(default_factory=lambda: SimpleNamespace(preprocess=None))

    def account(self) -> Mapping[str, Any]:
        return {"model": {"path": "m.onnx", "sha256": "0" * 64}, "versions": {}, "score": "logits"}

    def peaks(self) -> Mapping[str, float]:
        return {}

    def at_scale(self, scale: float | Mapping[str, float]) -> Small:
        return self

    def sheets(self) -> list[files.Sheet]:
        record = {"image_index": 0, "is_blank": False, "scale": 1.0}
        return [
            files.Sheet(
                "", "gradcam", str(row), 1, None,
                {"": files.MapFile(np.array([self.number, row], np.float32), None, "gradcam", record)},
            )
            for row in (0, 1)
        ]  # fmt: skip


def explain(folder: Path, mode: Mode, images: Sequence[str] = IMAGES, shift: float = 0) -> None:
    """Do what a job does: write what is not there yet."""
    with Store(folder, mode, RUN) as store:
        kept = [entry["image"] for entry in store.kept]
        for number, name in enumerate(images):
            if name not in kept:
                store.write(Small(number + shift), files.Subject(name, name, "f" * 64))


def stopped(folder: Path, stop: type[BaseException]) -> None:
    """Stop a run after its first image."""
    with Store(folder, "new", RUN) as store:
        store.write(Small(0), files.Subject("a", "a", "f" * 64))
        (folder / "journal").write_bytes((folder / JOURNAL).read_bytes())
        raise stop("stop")


def content(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder, but for the manifest."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def manifest(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    return loaded


def named(folder: Path) -> dict[str, str]:
    return {name: digest for result in manifest(folder)["results"] for name, digest in result["files"].items()}


def test_a_run_and_its_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    explain(folder, "new")
    written = content(folder)
    assert sorted(written) == sorted(f"{name}.gradcam.{row}.npy" for name in IMAGES for row in (0, 1))
    assert named(folder) == {name: hashlib.sha256(data).hexdigest() for name, data in written.items()}
    said = manifest(folder)
    assert (said["complete"], said["score"], said["left_out"], said["errors"]) == (True, "logits", {}, [])
    assert said["time"]["started"] <= said["time"]["finished"]
    assert [result["stem"] for result in said["results"]] == list(IMAGES)


def test_results_that_are_there_are_refused(tmp_path: Path) -> None:
    explain(tmp_path, "new")
    before = content(tmp_path), (tmp_path / MANIFEST).read_bytes()
    with pytest.raises(OutputError, match="already holds results") as error:
        explain(tmp_path, "new")
    assert all(option in error.value.hint for option in ("--resume", "--overwrite", "-o"))
    assert (content(tmp_path), (tmp_path / MANIFEST).read_bytes()) == before


def test_overwriting_removes_what_the_manifest_names_and_nothing_else(tmp_path: Path) -> None:
    explain(tmp_path, "new")
    mine = {"cats/mine.png": b"mine", "notes.txt": b"notes", "c.gradcam.9.npy": b"looks like a result"}
    for name, data in mine.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "c.gradcam.1.npy").write_bytes(b"edited by hand")
    explain(tmp_path, "overwrite", ["d"])
    kept = {**mine, "c.gradcam.1.npy": b"edited by hand"}
    assert {n: d for n, d in content(tmp_path).items() if n in kept} == kept
    assert sorted(set(content(tmp_path)) - set(kept)) == ["d.gradcam.0.npy", "d.gradcam.1.npy"]
    assert [result["image"] for result in manifest(tmp_path)["results"]] == ["d"]


def test_a_folder_that_is_empty_after_overwriting_goes(tmp_path: Path) -> None:
    explain(tmp_path, "new")
    explain(tmp_path, "overwrite", ["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gradcam.0.npy", "a.gradcam.1.npy", MANIFEST]


def test_a_file_of_the_user_in_the_place_of_a_result_stays(tmp_path: Path) -> None:
    (tmp_path / "a.gradcam.1.npy").write_bytes(b"mine")
    with pytest.raises(OutputError, match="already exists"):
        explain(tmp_path, "new")
    assert content(tmp_path) == {"a.gradcam.1.npy": b"mine"}
    assert not (tmp_path / MANIFEST).exists()


@pytest.mark.parametrize("mode", ["new", "overwrite", "resume"])
def test_a_manifest_of_something_else_stays(tmp_path: Path, mode: Mode) -> None:
    (tmp_path / MANIFEST).write_text('{"name": "a web page"}')
    assert not holds_results(tmp_path)
    with pytest.raises(OutputError, match="no manifest of this tool"):
        explain(tmp_path, mode)
    assert (tmp_path / MANIFEST).read_text() == '{"name": "a web page"}'


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"mine")
    folder = tmp_path / "out"
    explain(folder, "new")
    changed = manifest(folder)
    digest = hashlib.sha256(b"mine").hexdigest()
    changed["results"][0]["files"] |= {"../outside.txt": digest, str(outside): digest, "a/../../outside.txt": digest}
    (folder / MANIFEST).write_text(json.dumps(changed))
    explain(folder, "overwrite")
    assert outside.read_bytes() == b"mine"


def test_a_run_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    explain(tmp_path / "there", "new")
    before = content(tmp_path)
    for folder, mode in (("new/out", "new"), ("there", "overwrite"), ("there", "resume")):
        with pytest.raises(InputError), Store(tmp_path / folder, mode, RUN):  # type: ignore[arg-type]
            raise InputError("no image can be read")
    assert content(tmp_path) == before
    assert not (tmp_path / "new").exists()
    assert manifest(tmp_path / "there")["complete"] is True


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, InputError])
def test_a_run_that_is_interrupted_says_so(tmp_path: Path, stop: type[BaseException]) -> None:
    with pytest.raises(stop):
        stopped(tmp_path, stop)
    assert manifest(tmp_path)["complete"] is False
    assert (
        sorted(named(tmp_path)) == sorted({*content(tmp_path)} - {"journal"}) == ["a.gradcam.0.npy", "a.gradcam.1.npy"]
    )
    with pytest.raises(OutputError, match="of a run that was stopped") as error:
        explain(tmp_path, "new")
    assert "--resume" in error.value.hint


def test_resuming_adds_what_is_missing_and_mends_what_was_changed(tmp_path: Path) -> None:
    explain(tmp_path / "whole", "new")
    explain(tmp_path / "out", "new", IMAGES[:2])
    started = manifest(tmp_path / "out")["time"]["started"]
    (tmp_path / "out" / "a.gradcam.1.npy").unlink()
    explain(tmp_path / "out", "resume")
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert [result["image"] for result in manifest(tmp_path / "out")["results"]] == ["cats/b", "a", "c"]
    assert manifest(tmp_path / "out")["time"]["started"] == started
    explain(tmp_path / "out", "resume")  # nothing to do
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert manifest(tmp_path / "out")["complete"] is True


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


@contextmanager
def killed_at(moment: int, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException] = Killed) -> Iterator[list[int]]:
    """End everything at the given change of the file system; yields the number of changes."""
    count = [0]

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **keywords: Any) -> Any:
            count[0] += 1
            if count[0] == moment:
                raise stop()
            return function(*arguments, **keywords)

        return change

    class Watched(FileIO):
        write = watched(FileIO.write)

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            opened.append(self)

    opened: list[FileIO] = []
    with monkeypatch.context() as patch:
        for name in ("write_bytes", "replace", "unlink", "mkdir", "rmdir"):
            patch.setattr(Path, name, watched(getattr(Path, name)))
        patch.setattr("onnx_gradcam.results.store.FileIO", Watched)
        leave = Store.__exit__
        patch.setattr(Store, "__exit__", lambda self, kind, *rest: None if kind is Killed else leave(self, kind, *rest))
        yield count
        for file in opened:
            file.close()


def prepare(folder: Path, before: Sequence[str]) -> None:
    if before:
        explain(folder, "new", before, shift=10)
    folder.mkdir(exist_ok=True)
    (folder / "mine.txt").write_bytes(b"mine")


@pytest.mark.parametrize(
    ("mode", "before"),
    [("new", ()), *((mode, before) for mode in ("overwrite", "resume") for before in (("a", "z"), ("a", "cats/b")))],
)
def test_killed_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, before: Sequence[str]
) -> None:
    """After each change of the file system in turn the process dies; then every file is known, and a rerun is whole."""
    prepare(tmp_path / "reference", before)
    with killed_at(0, monkeypatch) as count:
        explain(tmp_path / "reference", mode, TWO)
    assert count[0] >= 10
    expected = content(tmp_path / "reference")
    for moment in range(1, count[0] + 1):
        for again in ("resume", "overwrite"):
            folder = tmp_path / f"{moment}-{again}"
            prepare(folder, before)
            with killed_at(moment, monkeypatch), pytest.raises(Killed):
                explain(folder, mode, TWO)
            state = read_state(folder)
            known = {} if state is None else state.files
            strange = set(content(folder)) - set(known) - {"mine.txt", JOURNAL, ".onnx-gradcam.part"}
            assert not strange, f"moment {moment}"
            replaced = again == "overwrite" and mode == "resume"
            explain(folder, again, TWO)  # type: ignore[arg-type]
            said = manifest(folder)
            assert said["complete"] is True
            assert {*named(folder), "mine.txt"} == set(content(folder)), f"moment {moment}, {again}"
            if not replaced:
                assert set(TWO) <= {result["image"] for result in said["results"]}
            if mode != "resume" and again == "overwrite":
                assert content(folder) == expected, f"moment {moment}"


@pytest.mark.parametrize("mode", ["new", "overwrite", "resume"])
def test_interrupted_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    """An interrupt may come between any two steps: the manifest names exactly what lies there."""
    before = () if mode == "new" else ("a", "z")
    prepare(tmp_path / "reference", before)
    with killed_at(0, monkeypatch) as count:
        explain(tmp_path / "reference", mode, TWO)
    for moment in range(1, count[0] + 1):
        folder = tmp_path / str(moment)
        prepare(folder, before)
        with killed_at(moment, monkeypatch, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            explain(folder, mode, TWO)
        if (folder / MANIFEST).exists():
            assert {*named(folder), "mine.txt"} == set(content(folder)), f"moment {moment}"
        else:
            assert set(content(folder)) == {"mine.txt"}, f"moment {moment}"


def no_space() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("mode", ["new", "overwrite", "resume"])
def test_a_disk_that_fails_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    """One change of the file system fails: the error says so, every file is known, and a rerun is whole."""
    before = () if mode == "new" else ("a", "z")
    prepare(tmp_path / "reference", before)
    with killed_at(0, monkeypatch) as count:
        explain(tmp_path / "reference", mode, TWO)
    for moment in range(1, count[0] + 1):
        folder = tmp_path / str(moment)
        prepare(folder, before)
        with killed_at(moment, monkeypatch, no_space), pytest.raises(OutputError, match="No space left"):
            explain(folder, mode, TWO)
        if (folder / MANIFEST).exists():
            assert {*named(folder), "mine.txt"} == set(content(folder)), f"moment {moment}"
        again: Mode = "resume" if mode == "resume" else "overwrite"
        explain(folder, again, TWO)
        assert {*named(folder), "mine.txt"} == set(content(folder)), f"moment {moment}"
        assert set(TWO) <= {result["image"] for result in manifest(folder)["results"]}


def test_a_journal_with_a_torn_line(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stopped(tmp_path, KeyboardInterrupt)
    journal = (tmp_path / "journal").read_bytes()
    (tmp_path / MANIFEST).unlink()
    for cut in range(0, len(journal), 7):
        (tmp_path / JOURNAL).write_bytes(journal[:cut])
        state = read_state(tmp_path)
        assert state is not None
        assert len(state.results) == 0
    (tmp_path / JOURNAL).write_bytes(journal)
    state = read_state(tmp_path)
    assert state is not None
    assert [result["image"] for result in state.results] == ["a"]


def test_writing_many_images_costs_no_more_each(tmp_path: Path) -> None:
    """The journal grows by lines of the same length: nothing is written anew for each image."""
    sizes = []
    with Store(tmp_path, "new", RUN) as store:
        for number in range(40):
            store.write(Small(number), files.Subject(f"image{number:02}", "x", "f" * 64))
            sizes.append((tmp_path / JOURNAL).stat().st_size)
    steps = np.diff(sizes)
    assert steps.max() == steps.min()
