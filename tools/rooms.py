"""The import contract of the package: one line a room, checked by import-linter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class RoomsContract(Contract):
    """Hold each import of the package against the table of rooms.

    A line of ``rooms`` reads ``room: room room.module``: what the room may import. What those may import is allowed,
    too. A room that stands in no line, and an import that no line allows, break the contract. The package's own
    ``__init__`` and ``__main__`` may import everything.
    """

    package = fields.StringField()
    rooms = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Collect the imports that no line allows."""
        rooms, package = parse([str(line) for line in vars(self)["rooms"]]), str(self.package)
        forbidden = [
            (importer, imported)
            for importer in sorted(graph.modules)
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if not is_allowed(inside(importer, package), inside(imported, package), rooms)
        ]
        return ContractCheck(kept=not forbidden, metadata={"forbidden": forbidden})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each import that no line of the table allows."""
        for importer, imported in check.metadata["forbidden"]:
            output.print_error(f"{importer} must not import {imported}")


def parse(lines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return room → the rooms and modules that its line names."""
    split = (line.partition(":") for line in lines)
    return {room.strip(): tuple(allowed.split()) for room, _, allowed in split}


def inside(module: str, package: str) -> str:
    """Return the name of a module within the package, "" for the package itself and for modules of others."""
    return module.removeprefix(f"{package}.") if module.startswith(f"{package}.") else ""


def is_allowed(importer: str, imported: str, rooms: Mapping[str, tuple[str, ...]]) -> bool:
    """Tell whether the table lets one module import another; both by their names within the package."""
    room = importer.split(".")[0]
    if not imported or room in ("", "__main__") or imported.split(".")[0] == room:
        return True
    return any(imported == name or imported.startswith(f"{name}.") for name in reach(room, rooms))


def reach(room: str, rooms: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return all that a room may import: what its line names, and what the rooms of these may import."""
    named = rooms.get(room, ())
    return set(named).union(*(reach(name.split(".")[0], rooms) for name in named))
