"""DeepLIFT: multipliers between a baseline and the input, in the place of gradients.

The first line of the docstring of the method is its formula and its source: the table of methods in the documentation
is made of these lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_gradcam.methods.integration import Baseline, Inputs, baselines

Array = npt.NDArray[Any]


def deeplift(x: Inputs, images: Array, multipliers: Inputs, *, baseline: Baseline = 0.0) -> dict[str, Array]:
    """(x − b) · m, m the gradient with Δy/Δx in the place of dy/dx.   Shrikumar et al. 2017, arXiv:1704.02685, Rescale.

    Δ is the difference between the input and the baseline b, which runs through the same network in the same run. The
    attributions add up to the score's difference from the baseline, without any steps. ``baseline`` as in
    integrated-gradients; an array with one axis more than x holds several in a row, and the attributions are the mean
    over them (captum's DeepLiftShap). All floating-point inputs move together, as there. Where Δx is near 0 the
    derivative is taken.

    Of a product of two values each is multiplied with the mean of the other one, of a quotient likewise (gates,
    attention, normalisations): that, too, adds up. A max pool gives all to the largest element of whichever pass has
    the larger one. Recurrent layers, LRN, InstanceNormalization and choices by the input (TopK, If) have no rule. The
    RevealCancel rule is not here: it takes the contributions to each neuron apart by their sign, layer by layer, and no
    library has it that we could check it against.
    """
    begin = baselines(baseline, x)
    away = {name: each.astype(np.promote_types(each.dtype, np.float32)) - begin[name] for name, each in x.items()}
    return {name: np.asarray(away[name][images] * multipliers[name], np.float32) for name in x}


DIFFERENCE_METHODS: Mapping[str, Callable[..., dict[str, Array]]] = {"deeplift": deeplift}
