"""What a verification finds, as plain data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["pass", "fail", "undecided"]
Road = Literal["differences", "float64", "line"]  # through the runtime, without it, and over a longer way
Level = Literal["forward", "nodes", "layer", "image"]
RUNS_TIMED = 3
VERDICTS: dict[Status, str] = {
    "pass": "everything passed",
    "fail": "NOT everything passed",
    "undecided": "nothing failed, but NOT everything could be decided",
}


@dataclass(frozen=True)
class Scan:
    """How far the score's slope along one direction is from what the gradient claims, for steps of several lengths.

    Attributes:
        steps: lengths as shares of the norm of the value that was moved, the longest first.
        errors: for each step the measured slope minus the claimed one, as a share of the larger.
        plateau: the shortest and the longest of the steps that settle the error, None where none do.
        error: what is left of the error at step 0, None where nothing is settled.
        road: how the slope was measured. In float64 there are no steps, and on a line the only one is its half length.
    """

    steps: tuple[float, ...]
    errors: tuple[float, ...]
    plateau: tuple[float, float] | None
    error: float | None
    road: Road = "differences"


@dataclass(frozen=True)
class NodeCheck:
    """The check of one VJP rule at one node.

    Attributes:
        node, op_type: the node.
        input: the number of the input whose cotangent the rule makes.
        value: the name of that input.
        status: "pass", "fail" or "undecided".
        error: how far ⟨rule(g), v⟩ is from float64 differences, relative, the worst of several g; None where undecided.
        message: why it is undecided, and where else it was checked.
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
    """One of the checks of a network.

    Attributes:
        name: what was checked.
        status: "pass", "fail" or "undecided".
        error: the worst relative error; None where nothing could be measured.
        limit: the largest error that passes.
        message: what failed, or why nothing is decided.
        scans: the steps that a gradient was measured with, one scan for each direction.
        level: the part of the network: "forward" pass, "nodes" one by one, gradient at a "layer" or at the "image".
    """

    name: str
    status: Status
    error: float | None
    limit: float
    message: str = ""
    scans: tuple[Scan, ...] = ()
    level: Level = "layer"

    @property
    def roads(self) -> dict[str, int]:
        """Return how many directions were decided, by the road on which they were."""
        return dict(Counter(scan.road for scan in self.scans if scan.error is not None))

    @property
    def plateau(self) -> tuple[float, float] | None:
        """Return the plateau of the scan with the worst error; None where a scan has none, or there are no scans."""
        if not self.scans or any(scan.error is None for scan in self.scans):
            return None
        return max(self.scans, key=lambda scan: scan.error or 0).plateau


@dataclass(frozen=True)
class Timing:
    """How long a verification took.

    Attributes:
        seconds: all of it.
        inference: one run of the deployed network on the same input, in seconds.
    """

    seconds: float
    inference: float

    @property
    def inferences(self) -> float:
        """Return for how many runs of the network the time would have been enough."""
        return self.seconds / self.inference


def seconds_of(run: Callable[[], object]) -> float:
    """Return how long ``run`` takes: the shortest of ``RUNS_TIMED`` times."""
    times = []
    for _ in range(RUNS_TIMED):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@dataclass(frozen=True, repr=False)
class Report:
    """The outcome of ``verify``.

    Attributes:
        model: the path of the model, or what it is called where it came from memory.
        score: the score that was differentiated.
        class_index: for each image the class that was explained.
        layers: the target layers.
        providers: the execution providers in use, by full name.
        checks: forward pass, nodes and gradients.
        nodes: the VJP rules that were checked one by one.
        alike: how many nodes were not checked because others of the same operator, attributes and shapes were.
        notes: what was not checked, and why.
        timing: how long it took; it plays no part in whether two reports are equal.
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
    timing: Timing = field(compare=False)

    def __repr__(self) -> str:
        return f"<Report on {self}>"

    @property
    def status(self) -> Status:
        """Return "fail" if a check failed, else "undecided" if one could not be decided, else "pass"."""
        statuses = {check.status for check in self.checks}
        return "fail" if "fail" in statuses else "undecided" if "undecided" in statuses else "pass"

    @property
    def ok(self) -> bool:
        """Return whether every check passed; an undecided one did not."""
        return self.status == "pass"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        checks = [{**asdict(check), "plateau": check.plateau, "roads": check.roads} for check in self.checks]
        timing = {**asdict(self.timing), "inferences": self.timing.inferences}
        return {"ok": self.ok, "status": self.status, **asdict(self), "checks": checks, "timing": timing}

    def __str__(self) -> str:
        """Return the verdict in one line."""
        others = ", ".join(f"{check.name} ({check.status})" for check in self.checks if check.status != "pass")
        return ": ".join(filter(None, [self.model, VERDICTS[self.status], others]))
