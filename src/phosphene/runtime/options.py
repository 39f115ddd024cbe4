"""How a network is run: what is passed down from an evaluator to every operation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Options:
    """How activations and their gradient are computed. Results are the same but for rounding.

    Make them once for an evaluator, not for each call.

    Args:
        memory_efficient: Save less for the gradient, which takes a little longer: no input of a
            convolution, one byte for each value of a ReLU, two for each index of a max-pooling;
            and the first layers see a large picture in bands. What is saved goes with the last of
            `backward_passes`.
        backward_passes: How many gradients will be taken of one forward pass.
        plain_modules: Run the operations of the network one by one, as it has them, and nothing
            fused: for whatever looks at single operations, or changes them.
        numba_pooling: Max-pooling by Numba where it is installed, waited for, as it is otherwise
            for large pictures only: it takes less memory. Others have it once it is there, unless
            memory is to be saved, where its gradient is rounded otherwise.
        numba_beside: Others have it so. Without, nothing depends on when it is there: to measure.
        bands: "always" cuts pictures of any size into bands where memory is to be saved: to
            measure what large ones take.
        linked: Of several layers' activations, the gradient of one can be had with respect to
            another that it comes of, as with respect to the picture, and again with
            `retain_graph`. Whoever asks only for the picture's goes without: it is as quick as for
            one layer, and rounded alike whatever else is asked for.
        captured: On CUDA a whole picture's evaluation is captured in a graph once one of its kind
            was asked for often (`phosphene.runtime.capture`), unless memory is to be saved.
    """

    memory_efficient: bool = False
    backward_passes: int = 1
    plain_modules: bool = False
    numba_pooling: bool = False
    numba_beside: bool = True
    bands: Literal["auto", "always"] = "auto"
    linked: bool = True
    captured: bool = True

    def unlinked(self) -> Options:
        """These, for a gradient with respect to the picture alone."""
        return replace(self, linked=False) if self.linked else self

    def with_numba(self, wanted: bool = True) -> Options:
        """These, with `numba_pooling` if they have it or it is `wanted`."""
        return replace(self, numba_pooling=True) if wanted and not self.numba_pooling else self


DEFAULT = Options()
PLAIN_MODULES = Options(plain_modules=True)
MEMORY_EFFICIENT = Options(memory_efficient=True)
