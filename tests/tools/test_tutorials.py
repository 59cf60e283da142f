"""Pages as programs: which fences run, and what is found when one prints something else."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from gallery import WIDEST
from repository import DOCS
from tutorials import PICTURE, Step, differences, draw_pictures, steps

PAGE = """\
# A page

```python
x = 20
print(x + 1)
```

```text
21
```

```python
print(f"{x}.5 seconds")
```

Prose between them: the next fence is no output.

```text
never printed
```

<!-- not run -->
```sh
exit 1
```

```json
{}
```
"""


def test_which_fences_are_steps() -> None:
    assert steps(PAGE) == [
        Step(4, "python", "x = 20\nprint(x + 1)\n", "21\n"),
        Step(13, "python", 'print(f"{x}.5 seconds")\n', None),
    ]


def test_a_page_that_prints_what_it_shows() -> None:
    assert list(differences(PAGE, "page.md")) == []


@pytest.mark.parametrize("shown", ["22", "21\n21", "", "2", "...3"])
def test_another_output_is_a_difference(shown: str) -> None:
    (difference,) = differences(PAGE.replace("21\n", f"{shown}\n"), "page.md")
    assert difference.startswith("page.md, line 4\n")


def test_dots_stand_for_anything() -> None:
    assert list(differences(PAGE.replace("21\n", "2...\n"), "page.md")) == []


def test_commands_run_in_the_folder_and_see_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = "```sh\necho hello > made.txt\nonnx-gradcam --version\n```\n\n```text\nonnx-gradcam ...\n```\n"
    assert list(differences(page, "page.md")) == []
    assert (tmp_path / "made.txt").read_text("utf-8") == "hello\n"


def test_a_command_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match=r"page\.md, line 2: exit status 2"):
        list(differences("```sh\nonnx-gradcam inspect missing.onnx\necho not reached\n```\n", "page.md"))


def test_code_that_fails_is_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        list(differences("```python\n1 / 0\n```\n", "page.md"))


def test_pictures_of_a_page_are_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    cv2.imwrite("drawn.png", np.full((10, 2 * WIDEST, 3), 77, np.uint8))
    page = "<!-- picture: drawn.png -->\n![A grey bar](images/bar.jpg)\n"
    draw_pictures(page, tmp_path / "page.md")
    shown = cv2.imread("images/bar.jpg")
    assert shown.shape == (5, WIDEST, 3)
    assert (shown == 77).all()


def test_every_picture_of_a_recipe_has_a_source() -> None:
    for page in (DOCS / "recipes").glob("*.md"):
        text = page.read_text("utf-8")
        assert text.count("](../images/") == len(PICTURE.findall(text)), page.name
