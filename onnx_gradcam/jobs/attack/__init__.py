"""Adversarial images by our own gradient: an audit of how easily a deployed model changes its mind."""

from onnx_gradcam.jobs.attack.attack import attack
from onnx_gradcam.jobs.attack.result import AttackResult

__all__ = ["AttackResult", "attack"]
