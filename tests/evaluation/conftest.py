"""Pairs whose exemplars tell everything about their targets, and a model that listens or does not."""

import dataclasses

import numpy as np
import pytest

from mscaflax.data.classes import ClassTable
from mscaflax.evaluation.pairlist import PairList, retrieve_exemplars
from mscaflax.evaluation.swap import draw_triples


def make_pairs(n, cell):
    """n photos of one flat colour per class, two patches of 4x4 blocks of `cell` pixels each."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (2 * n, 4, 4)).repeat(cell, 1).repeat(cell, 2).astype(np.int32)
    palette = rng.integers(0, 256, (n, 4, 3)).astype(np.uint8)
    names = tuple(f"photo{i}" for i in range(n))
    return PairList(
        dataset="toy",
        split="val",
        fingerprint="f",
        seed=3,
        names=names,
        photos=np.arange(n),
        boxes=np.zeros((n, 2, 3), np.int32),
        triples=draw_triples(np.arange(n), n, seed=3),
        retrieved=retrieve_exemplars(labels, np.arange(n), names, 3, seed=3),
        patches=np.stack([palette[i % n][labels[i]] for i in range(2 * n)]),
        labels=labels,
    )


@dataclasses.dataclass
class Painter:
    """Paints each class in its mean colour in the exemplar; with `deaf`, in colours of its own."""

    deaf: bool = False
    batch_sizes: set = dataclasses.field(default_factory=set)

    def generate(self, label, exemplar, exemplar_label, seed=0):
        self.batch_sizes.add(len(label))
        assert exemplar.dtype == np.float32 and np.abs(exemplar).max() <= 1
        out = np.zeros((*label.shape, 3), np.float32)
        for image, target, style, style_map in zip(out, label, exemplar, exemplar_label, strict=True):
            for k in np.unique(target):
                inside = style[style_map == k]
                image[target == k] = k / 4 if self.deaf or not len(inside) else inside.mean(0)
        return out


@pytest.fixture(scope="session")
def toy_classes():
    """Three classes."""
    return ClassTable(("sky", "wall", "door"), ((0, 0, 255), (200, 100, 50), (90, 60, 20)))


@pytest.fixture(scope="session")
def pairs():
    """Seven pairs of 12x12 pixels."""
    return make_pairs(7, 3)


@pytest.fixture(scope="session")
def larger_pairs():
    """Five pairs of 32x32 pixels, which every network can see."""
    return make_pairs(5, 8)


@pytest.fixture(scope="session")
def painter():
    """The class of the model."""
    return Painter
