"""Frozen lists of evaluation pairs: which patches of which photos, as JSON that anyone can compare."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mscaflax.data.pixels import to_uint8
from mscaflax.evaluation import retrieval
from mscaflax.evaluation.swap import draw_triples


@dataclasses.dataclass(frozen=True)
class PairList:
    """A frozen list of evaluation pairs and their patches.

    Attributes:
      dataset, split: where the photos come from.
      fingerprint: of the dataset, so that lists of other photos are other lists.
      seed: that drew the pairs and the triples.
      names: the n photos' names.
      photos: int [n], their places in the split; several pairs may come from one photo.
      boxes: int [n, 2, 3], (top, left, side) of target and exemplar patch in the photo, in pixels.
      triples: int [t, 3], for the swap test: the pair whose target is the layout, and the two pairs whose
        exemplar patches are the exemplars a and b. Layouts go through the pairs in turn. t = 0 if there are
        fewer than three different photos, t = n otherwise.
      retrieved: int [n], the pair whose exemplar patch is each target's retrieved exemplar, see
        `retrieve_exemplars`; [0] if all pairs are of one photo.
      patches: uint8 [2n, h, w, 3], the targets, then the exemplars.
      labels: int32 [2n, h, w] in 0..C, their label maps.
    """

    dataset: str
    split: str
    fingerprint: str
    seed: int
    names: tuple[str, ...]
    photos: np.ndarray
    boxes: np.ndarray
    triples: np.ndarray
    retrieved: np.ndarray
    patches: np.ndarray
    labels: np.ndarray

    def to_json(self) -> str:
        """The list as JSON text with sorted keys, patches given by their boxes: what `pairs.json` holds."""
        pairs = [
            {"photo": name, "target": box[0].tolist(), "exemplar": box[1].tolist()}
            for name, box in zip(self.names, self.boxes, strict=True)
        ]
        value = {
            "box": "top, left, side in pixels of the photo",
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
            "pairs": pairs,
            "retrieved": self.retrieved.tolist(),
            "retrieval": "for each target the pair whose exemplar is taken, from the nearest 20%",
            "seed": self.seed,
            "size": int(self.patches.shape[1]),
            "split": self.split,
            "triple": "layout (target of that pair), exemplar a, exemplar b (exemplars of those pairs)",
            "triples": self.triples.tolist(),
        }
        return json.dumps(value, indent=1, sort_keys=True) + "\n"

    def sha256(self) -> str:
        """The hash of `to_json`: equal for equal lists."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def freeze_pairs(
    source: Any,
    *,
    dataset: str,
    split: str,
    fingerprint: str,
    count: int,
    size: int,
    num_classes: int,
    seed: int,
    side_range: tuple[float, float] = (0.5, 1.0),
) -> PairList:
    """Draws the list: always the same for the same photos and arguments; a larger `count` keeps the pairs.

    Which exemplars of other photos go with them depends on the whole list: its own exemplars are the
    candidates.

    Args:
      source: random access to the photos of one split (`mscaflax.data.datasets.Source`).
      dataset, split, fingerprint: for the record, see `PairList`.
      count: number of pairs, and of swap triples.
      size: side of the patches, in pixels.
      num_classes: C.
      seed: of the draw.
      side_range: of the patches, see `mscaflax.data.pairs.side_bounds`.

    Raises:
      UserError: a photo cannot be used, or an argument is out of range.
    """
    from mscaflax.data.pipeline import evaluation_pairs

    batch = evaluation_pairs(
        source, count=count, size=size, num_classes=num_classes, seed=seed, side_range=side_range
    )
    labels = np.concatenate([batch["label"], batch["exemplar_label"]])
    boxes = np.asarray(batch["boxes"])
    return PairList(
        dataset=dataset,
        split=split,
        fingerprint=fingerprint,
        seed=seed,
        names=tuple(batch["name"]),
        photos=np.asarray(batch["index"]),
        boxes=boxes,
        triples=draw_triples(batch["index"], count, seed),
        retrieved=retrieve_exemplars(
            labels,
            batch["index"],
            [f"{name} {box[0].tolist()}" for name, box in zip(batch["name"], boxes, strict=True)],
            num_classes,
            seed,
        ),
        patches=to_uint8(np.concatenate([batch["image"], batch["exemplar"]])),
        labels=labels,
    )


def retrieve_exemplars(
    labels: np.ndarray, photos: np.ndarray, targets: Sequence[str], num_classes: int, seed: int
) -> np.ndarray:
    """For each target an exemplar whose label map is like the target's, drawn from the nearest 20% by rank.

    The query is the target patch's label map alone. The candidates are the exemplar patches of the list but
    those of the target's own photo: patches of one size and one sampling law, as the model was trained with,
    and the same that the random exemplars come from. `mscaflax.evaluation.retrieval` defines the distance.

    Args:
      labels: int [2n, h, w] in 0..C, of the targets, then of the exemplars.
      photos: int [n], the photos that the pairs come from.
      targets: n names; the draw depends on them, and not on the order of the targets.
      num_classes: C.
      seed: of the draw.

    Returns:
      int64 [n], indices of pairs; [0] if all pairs are of one photo.
    """
    photos = np.asarray(photos)
    n = len(photos)
    if np.unique(photos).size < 2:
        return np.zeros(0, np.int64)
    found = retrieval.descriptors(labels, num_classes)
    own = [np.flatnonzero(photos == photo) for photo in photos]
    exclude = np.full((n, max(map(len, own))), -1)
    for row, indices in zip(exclude, own, strict=True):
        row[: len(indices)] = indices
    nearest = retrieval.rank(found[:n], found[n:], exclude)
    return retrieval.draw_exemplars(nearest, targets, seed=seed).indices[:, 0]
