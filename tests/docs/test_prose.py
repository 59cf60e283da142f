"""The first line of a docstring is a sentence with a verb that says what the caller gets."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "onnx_gradcam"
FORMULAS = ("autodiff/rules", "graph/lowering", "graph/prepare/adapters.py")
"""Where a function is a rule or a definition, and its first line the formula."""
SIGNS = ("=", "→", "·", "∂", "Σ", "   ")
VERBS = frozenset(
    """Add Allow Answer Append Apply Attribute Average Bind Bring Build Call Change Check Choose Collect Combine Compare
    Compute Copy Count Cut Decide Declare Decode Differentiate Divide Draw Drop Evaluate Exit Explain Fill Find Fold
    Follow Forget Free Fuse Give Group Hold Import Infer Insert Keep Leave Let List Load Look Lower Make Mark Match
    Measure Merge Move Name Note Open Parse Pick Place Prepare Print Pull Put Raise Read Record Refuse Register
    Remove Rename Repeat Replace Report Reset Resize Resolve Restore Return Rewrite Run Save Say Scale Select Send
    Set Settle Show Split Start State Stop Store Sum Take Tell Trace Try Turn Undo Update Upsample Use Verify Walk
    Warn Weigh Write Yield""".split()
)


def public_functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def is_sentence(line: str) -> bool:
    return line.split()[0].strip(".,:") in VERBS or any(sign in line for sign in SIGNS)


def test_first_lines_say_what_the_caller_gets() -> None:
    fragments = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if place.startswith(FORMULAS):
            continue
        for function in public_functions(ast.parse(path.read_text("utf-8"))):
            text = ast.get_docstring(function)
            if text and not is_sentence(text.splitlines()[0]):
                fragments.append(f"{place}:{function.lineno} {function.name}: {text.splitlines()[0]}")
    assert fragments == []


def test_a_fragment_is_found() -> None:
    assert not is_sentence("That of ``whole``.")
    assert is_sentence("Return the session of the whole graph.")
    assert is_sentence("y = σ(x):  x̄ = g · y · (1 − y).")
