"""What all target objects are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from onnx_gradcam.errors import InputError, TargetError
from onnx_gradcam.photos.geometry import Geometry
from onnx_gradcam.targets.bound import BoundTarget, Context


@contextmanager
def reading(target: object) -> Iterator[None]:
    """A file of a target that cannot be read is the target's fault, not that of an image: a ``TargetError``."""
    try:
        yield
    except InputError as error:
        raise TargetError(error.what, where=error.where, hint=error.hint, target=target) from None


class TargetObject(ABC):
    """A target that is more than a class. Places are in the pixels of the photo, for arrays of the input."""

    @abstractmethod
    def bind(self, context: Context) -> BoundTarget:
        """How it is carried out on a model. Raises ``TargetError`` where the model has no such thing."""

    def in_input(self, geometry: Geometry) -> TargetObject:
        """The same with places in the pixels of the model's input. Raises ``TargetError`` for what was not seen."""
        return self
