"""Units that give no gradient: noted, helped past dead ReLUs, and told of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from phosphene.engine import Evaluate
from phosphene.errors import DeadUnitWarning, StateError
from phosphene.evaluation.leaking import leaking_relus
from phosphene.runtime.options import DEFAULT, PLAIN_MODULES, Options
from phosphene.state import State

# Steps over which a unit without a gradient is helped; lucid's 16 wake few of the deeper sleepers.
HELPED_STEPS = 32


class DeadUnits:
    """Evaluates, notes which pictures have had a gradient, and helps those that begin without.

    `moved`, `(N,)` bool, stays on the device: reading it would stall an accelerator every step, and
    only the steps that may help read what moves.
    """

    def __init__(
        self, of: Callable[[Sequence[int], Options], Evaluate], texts: Sequence[str], batch: int
    ) -> None:
        self.of, self.texts, self.batch = of, texts, batch
        self.count, self.goals = len(texts), len(texts) // batch
        self.plain = of(range(self.goals), DEFAULT)
        self.moved = torch.zeros(self.count, dtype=torch.bool)
        self.index = 0
        self.helps = False

    def tensors(self) -> dict[str, Tensor]:
        """What a state holds of it, with `helps`; see `restore`."""
        return {"moved": self.moved, "evaluated": torch.tensor(self.index)}

    def restore(self, state: State) -> None:
        """Go on from a state. StateError if it is that of other pictures."""
        moved = state.tensor("moved")
        if moved.shape != self.moved.shape:
            raise StateError(f"the state is of {len(moved)} pictures, and there are {self.count}")
        self.moved, self.index = moved, int(state.tensor("evaluated"))
        self.helps = state.value("helps")

    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        score, gradient = self.plain(image)
        moves = gradient.reshape(self.count, -1).abs().amax(1) > 0
        self.moved = self.moved.to(moves.device) | moves
        if self.index == 0 and not bool(moves.all()):
            self.helps = True
            warnings.warn(
                f"{self._named(moves)} no gradient at the start: helped past dead ReLUs for up to "
                f"{HELPED_STEPS} steps",
                stacklevel=2,
            )
        if self.helps and self.index < HELPED_STEPS:
            gradient = self._helped(image, gradient, moves)
        self.index += 1
        return score, gradient

    def _helped(self, image: Tensor, gradient: Tensor, moves: Tensor) -> Tensor:
        """The gradient, leaked for the pictures that have none.

        Most wake in a step or two, so only objectives with one that sleeps are run once more; one
        that falls asleep again is helped again.
        """
        asleep = (~moves).view(self.goals, self.batch).any(1).nonzero().flatten().tolist()
        if not asleep:
            return gradient
        parts = [*image.split(len(image) // self.goals)]
        with leaking_relus():
            _, leaked = self.of(asleep, PLAIN_MODULES)(torch.cat([parts[k] for k in asleep]))
        rows = moves.repeat_interleave(len(image) // self.count).view(-1, 1, 1, 1)
        found, shares = [*gradient.split(len(parts[0]))], rows.split(len(parts[0]))
        for k, leak in zip(asleep, leaked.split(len(parts[0])), strict=True):
            found[k] = torch.where(shares[k], found[k], leak)
        return torch.cat(found)

    def report(self, steps: int) -> None:
        """Say which units are dead, if any are."""
        if not self.helps or bool(self.moved.all()):
            return
        warnings.warn(
            f"{self._named(self.moved)} no gradient in {steps} steps and counts as dead: "
            "the picture is left grey",
            DeadUnitWarning,
            stacklevel=2,
        )

    def _named(self, fine: Tensor) -> str:
        still = [text for text, ok in zip(self.texts, fine.tolist(), strict=True) if not ok]
        texts = list(dict.fromkeys(still))
        if len(texts) == 1:
            return f"{texts[0]} gives"
        shown = ", ".join(texts[:4]) + (", …" if len(texts) > 4 else "")
        return f"each of {len(texts)} objectives ({shown}) gives"
