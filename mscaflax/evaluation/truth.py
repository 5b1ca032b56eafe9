"""The true answers, which the embedded scenes alone have: the target's layout in the style of the exemplar.

Scenes are deterministic by index, and a record's name tells the index. So for a target cut from scene A and
an exemplar cut from scene B the truth is `render(layout_A, style_B)`, cut by the target's box and resized
as the pipeline does it. Under its own exemplars (`cross`, `self`) the truth is the target patch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mscaflax.data import scenes
from mscaflax.data.inputs import scenes_inputs
from mscaflax.data.patches import cut_photo, png_size
from mscaflax.data.pixels import to_uint8
from mscaflax.errors import UserError
from mscaflax.evaluation.batches import Advance, ignore_progress
from mscaflax.evaluation.generation import OWN_KINDS
from mscaflax.evaluation.pairlist import PairList


def scenes_size(dataset: Any, source: Any) -> tuple[int, int] | None:
    """The size (height, width) of the renders of a dataset of scenes; None if it is of something else.

    Args:
      dataset: a `mscaflax.data.datasets.Dataset`.
      source: random access to one of its splits.

    Raises:
      UserError: it holds scenes as another version of this package draws them.
    """
    size = png_size(source[0]["label"])
    if dataset.fingerprint == scenes_inputs(dataset.name, dataset.splits, size).fingerprint:
        return size
    if dataset.name == "scenes":
        raise UserError(
            "the dataset scenes was drawn by another version of mscaflax, so the true answers are not known: "
            "make it again with `mscaflax prepare --name=scenes` and its --data_dir"
        )
    return None


def foreign_exemplars(pairs: PairList, exemplars: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For the kinds of exemplar from other photos: int [n], the pair that each exemplar belongs to."""
    n = len(pairs.names)
    return {kind: indices - n for kind, indices in exemplars.items() if kind not in OWN_KINDS}


def scene_truth(
    pairs: PairList,
    exemplars: Mapping[str, np.ndarray],
    size: tuple[int, int],
    *,
    advance: Advance = ignore_progress,
) -> dict[str, np.ndarray]:
    """Draws the true answers of a list of scenes.

    Args:
      pairs: of `freeze_pairs`.
      exemplars: of `mscaflax.evaluation.generation.exemplars`.
      size: of the renders, see `scenes_size`.
      advance: called with 1 after each picture, n · kinds of foreign exemplars in all.

    Returns:
      By kind of foreign exemplar: uint8 [n, h, w, 3], like the targets of `pairs`.

    Raises:
      UserError: a name is not that of a scene.
    """
    every = np.arange(len(pairs.names))
    return {
        kind: draw_truth(pairs, every, styles, size, advance=advance)
        for kind, styles in foreign_exemplars(pairs, exemplars).items()
    }


def draw_truth(
    pairs: PairList,
    targets: np.ndarray,
    styles: np.ndarray,
    size: tuple[int, int],
    *,
    advance: Advance = ignore_progress,
) -> np.ndarray:
    """Draws targets of a list in the styles of other scenes of the list.

    Args:
      pairs: of `freeze_pairs`.
      targets, styles: int [k], the pairs whose target, and whose scene's style is taken.
      size: of the renders, see `scenes_size`.
      advance: called with 1 after each picture.

    Returns:
      uint8 [k, h, w, 3], like the targets of `pairs`.

    Raises:
      UserError: a name is not that of a scene.
    """
    names = pairs.names
    drawn = {name: scenes.named_scene(name) for name in {names[i] for i in (*targets, *styles)}}
    patches = []
    for target, style in zip(targets, styles, strict=True):
        image, _ = scenes.render(drawn[names[target]][0], drawn[names[style]][1], size)
        patches.append(to_uint8(cut_photo(image, pairs.boxes[target, 0], pairs.patches.shape[1])))
        advance(1)
    return np.stack(patches)
