"""Measures the table of Selvaraju et al. 2017 on our own classifiers, and writes it into docs/evaluation.md.

    python tools/paper_table.py [--only SECTION]...

Where do maps lie, do they agree with occlusion, do they tell two objects apart, at which layer, of which score, with
which weights, after an attack. Each figure is one of ``onnx-gradcam evaluate`` on drawn scenes that no training uses.
What was measured is kept in ``build/evaluation``: a run that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import time

import cv2
from measured import ROOT, write_section
from paper.measuring import measure
from paper.page import SECTIONS
from paper.pieces import all_pieces

PAGE = ROOT / "docs" / "evaluation.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    pieces = all_pieces()
    for section in arguments.only or SECTIONS:
        measured = []
        for piece in (piece for piece in pieces if piece.section == section):
            started = time.perf_counter()
            measured.append((piece, measure(piece)))
            print(f"{section}: {piece.model}, {piece.method}  {time.perf_counter() - started:.1f} s", flush=True)
        write_section(PAGE, section, SECTIONS[section](measured))


if __name__ == "__main__":
    main()
