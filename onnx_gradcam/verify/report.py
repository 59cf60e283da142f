"""What a verification found, as plain data and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

SHOWN = 20  # nodes in the text; the JSON has all
Status = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True)
class Scan:
    """How far the score's slope along one direction is from what the gradient claims, for steps of several lengths.

    ``steps``: as shares of the norm of the value that was moved, the longest first. ``errors``: measured slope minus
    claimed one, as a share of the larger. ``plateau``: the shortest and longest of the steps by which it was judged,
    None where they settle nothing; ``error``: what is left there at step 0.
    """

    steps: tuple[float, ...]
    errors: tuple[float, ...]
    plateau: tuple[float, float] | None
    error: float | None


@dataclass(frozen=True)
class NodeCheck:
    """One VJP rule at one node: input number ``input`` (the value ``value``) of ``node``.

    ``error``: of ⟨rule(g), v⟩ against float64 differences, relative, the worst of several g; None where undecided.
    """

    node: str
    op_type: str
    input: int
    value: str
    status: Status
    error: float | None
    message: str = ""


@dataclass(frozen=True)
class Check:
    """One of the checks: its worst relative ``error`` (None where nothing could be measured) and the ``limit``."""

    name: str
    status: Status
    error: float | None
    limit: float
    message: str = ""
    scans: tuple[Scan, ...] = ()

    @property
    def plateau(self) -> tuple[float, float] | None:
        """Of the scan with the worst error; None where one has no plateau, or there are no scans."""
        if not self.scans or any(scan.error is None for scan in self.scans):
            return None
        return max(self.scans, key=lambda scan: scan.error or 0).plateau


@dataclass(frozen=True)
class Report:
    """The outcome of ``verify``: ``ok`` only if every check passed.

    ``score``, ``class_index``, ``layers``: what was differentiated; ``providers``: what ran it; ``alike``: how many
    nodes were not checked because others of the same operator, attributes and shapes were; ``notes``: what was not
    checked, and why.
    """

    model: str
    score: str
    class_index: tuple[int, ...]
    layers: tuple[str, ...]
    providers: tuple[str, ...]
    checks: tuple[Check, ...]
    nodes: tuple[NodeCheck, ...]
    alike: int
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed; an undecided one did not."""
        return all(check.status == "pass" for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        checks = [{**asdict(check), "plateau": check.plateau} for check in self.checks]
        return {"ok": self.ok, **asdict(self), "checks": checks}

    def __str__(self) -> str:
        """A table of the checks, then the nodes that did not pass, then what was not checked."""
        width = max(len(check.name) for check in self.checks)
        classes = ", ".join(map(str, self.class_index))
        lines = [f"{self.model}: score {self.score!r}, class {classes}, on {self.providers[0]}"]
        lines += [_line(check, width) for check in self.checks]
        named = sorted((n for n in self.nodes if n.status != "pass"), key=lambda n: n.status != "fail")
        lines += [_node_line(node) for node in named[:SHOWN]]
        lines += [f"  ...        and {len(named) - SHOWN} more inputs of nodes"] if len(named) > SHOWN else []
        lines += [f"  note       {note}" for note in self.notes]
        return "\n".join([*lines, "everything passed" if self.ok else "NOT everything passed"])


def _line(check: Check, width: int) -> str:
    error = "-" if check.error is None else f"{check.error:.1e}"
    steps = "" if check.plateau is None else "steps {:.0e} to {:.0e}".format(*check.plateau)
    remarks = "; ".join(filter(None, [steps, check.message]))
    return f"  {check.status:9}  {check.name:{width}}  error {error:>7}, limit {check.limit:.0e}  {remarks}".rstrip()


def _node_line(node: NodeCheck) -> str:
    error = "" if node.error is None else f": relative error {node.error:.2g}"
    reason = f" ({node.message})" if node.message else ""
    return f"  {node.status:9}  {node.op_type} {node.node!r}, input {node.input} ({node.value!r}){error}{reason}"
