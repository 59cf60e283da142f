"""Arrays and a scoring function in, figures out: whether a map may be believed. Nothing here knows of ONNX or files.

All functions measure one map. ``x`` is the input of one image, channels first, (C, *space); ``heatmap`` (*space) lies
on it. A scoring function takes copies of x, (copies, C, *space), and returns one score for each, (copies,).
"""

from onnx_gradcam.metrics.evidence import EvidenceShare, evidence_share

__all__ = ["EvidenceShare", "evidence_share"]
