"""The outputs that are judged: every target's layout under every kind of exemplar."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from mscaflax.data.pixels import to_float, to_uint8
from mscaflax.errors import UserError
from mscaflax.evaluation.batches import Advance, Batches, ignore_progress
from mscaflax.evaluation.pairlist import PairList

# The exemplar comes from the target's own photo, so the target is what the output should be.
OWN_KINDS = ("cross", "self")
# The exemplar comes from another photo.
FOREIGN_KINDS = ("retrieved", "random")
# The swap test's exemplar b; its exemplar a is the one of `random`.
SWAPPED = "swapped"


class Synthesizes(Protocol):
    """What an evaluation needs of a model."""

    def generate(
        self, label: np.ndarray, exemplar: np.ndarray, exemplar_label: np.ndarray, seed: int = 0
    ) -> np.ndarray:
        """int [b, h, w], float [-1, 1] [b, h, w, 3], int [b, h, w] to float32 [-1, 1] [b, h, w, 3]."""
        ...


@dataclasses.dataclass(frozen=True)
class GuessesLabels:
    """A model whose exemplars come without label maps: a segmenter gives them.

    Attributes:
      model: see `Synthesizes`.
      predict: float32 [b, h, w, 3] in [-1, 1] to int [b, h, w] in 0..C-1.
    """

    model: Synthesizes
    predict: Callable[[np.ndarray], np.ndarray]

    def generate(
        self, label: np.ndarray, exemplar: np.ndarray, exemplar_label: np.ndarray, seed: int = 0
    ) -> np.ndarray:
        """As the model's; `exemplar_label` is not looked at."""
        # Each alone: an argmax can show how products round, which differs between batches.
        guessed = [self.predict(np.asarray(one)[None]) for one in exemplar]
        return self.model.generate(label, exemplar, np.concatenate(guessed), seed=seed)


def exemplars(pairs: PairList) -> dict[str, np.ndarray]:
    """The exemplar of each of the n targets, by kind: int [n], indices into `pairs.patches`.

    `cross` and `self` are always there; `retrieved` needs two different photos, `random` and `swapped` three.
    """
    n = len(pairs.names)
    found = {"cross": n + np.arange(n), "self": np.arange(n)}
    if len(pairs.retrieved):
        found["retrieved"] = n + pairs.retrieved
    if len(pairs.triples):
        # The layout of triple i is that of pair i.
        found |= {"random": n + pairs.triples[:, 1], SWAPPED: n + pairs.triples[:, 2]}
    return found


def synthesize(
    model: Synthesizes,
    pairs: PairList,
    exemplar: np.ndarray,
    *,
    layouts: np.ndarray | None = None,
    batches: Batches,
    seed: int = 0,
    advance: Advance = ignore_progress,
) -> np.ndarray:
    """Synthesizes layouts of targets.

    Args:
      exemplar: int [n], indices into `pairs.patches`.
      layouts: int [n], the targets; default: each in turn.
      batches: of the model's calls, which see full ones alone.
      seed: of the model's noise.
      advance: called with the number of images after each batch.

    Returns:
      uint8 [n, h, w, 3].

    Raises:
      UserError: an output holds values that are not finite.
    """

    def generate(layouts, exemplar):
        images = model.generate(
            pairs.labels[layouts], to_float(pairs.patches[exemplar]), pairs.labels[exemplar], seed=seed
        )
        images = np.asarray(images)
        if not np.isfinite(images).all():
            raise UserError("the model's output holds values that are not finite: its training has diverged")
        return to_uint8(images)

    layouts = np.arange(len(exemplar)) if layouts is None else layouts
    return batches.map(generate, layouts, exemplar, advance=advance)
