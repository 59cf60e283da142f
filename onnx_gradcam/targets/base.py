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
    """Turn the ``InputError`` of a target's file that cannot be read into a ``TargetError``: no image is at fault."""
    try:
        yield
    except InputError as error:
        raise TargetError(error.what, where=error.where, hint=error.hint, target=target) from None


class TargetObject(ABC):
    """A target that is more than a class.

    Places are in the pixels of the photo for ``explain_image``, and in those of the model's input for ``explain``.
    """

    @abstractmethod
    def bind(self, context: Context) -> BoundTarget:
        """Return how the target is explained on a model.

        Raises:
            TargetError: the target does not fit the model.
        """

    def in_input(self, geometry: Geometry) -> TargetObject:
        """Return the same target with places in the pixels of the model's input.

        Raises:
            TargetError: the model did not see the place.
        """
        return self
