"""Style relevance and semantic consistency, in the spirit of CoCosNet and UNITE, by our own definitions.

Zhang, Zhang, Chen, Yuan, Wen, "Cross-domain Correspondence Learning for Exemplar-based Image Translation",
CVPR 2020, section 4.1, and Zhan et al., "Unbalanced Feature Transport for Exemplar-based Image Translation",
CVPR 2021, measure style by low and semantics by high VGG features without saying exactly how. So:

* Style of an image: the mean and the deviation over positions of each channel of relu1_2, 128 numbers.
  Styles of unrelated photos are nearly parallel, since activations are positive; so they are centred: the
  mean over a set of real reference images is subtracted, and each number divided by its deviation over that
  set. **Style relevance** of an output: the cosine of its centred style with its exemplar's, in [-1, 1].
* **Semantic consistency** of an output with the image that its label map belongs to: for each class of the
  map, the cosine between the class's mean feature in both images; averaged over classes by area, and over
  relu3_2, relu4_2, relu5_2. In [0, 1], since activations are positive; unlabelled pixels do not count.

Shapes: n images, c classes (the last is unlabelled), d features.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mscaflax.data.pixels import to_float, to_uint8
from mscaflax.nets.vgg import Params, vgg16_activations

STYLE_LAYER = "relu1_2"
SEMANTIC_LAYERS = ("relu3_2", "relu4_2", "relu5_2")


@jax.jit
def style_moments(params: Params, images: jax.Array) -> jax.Array:
    """`styles` of float images in [-1, 1], on the device."""
    x = vgg16_activations(params, images, (STYLE_LAYER,), precision=lax.Precision.HIGHEST)[STYLE_LAYER]
    return jnp.concatenate([x.mean(axis=(1, 2)), x.std(axis=(1, 2))], axis=-1)


def styles(params: Params, images: np.ndarray) -> np.ndarray:
    """Mean and deviation of every channel of relu1_2.

    Args:
      params: of `mscaflax.nets.vgg.load_vgg16`.
      images: [n, h, w, 3], uint8 or float in [-1, 1] (rounded to 8 bits); h and w at least 16.

    Returns:
      float32 [n, 128], at least 0.
    """
    return np.asarray(style_moments(params, to_float(to_uint8(images))))


@dataclasses.dataclass(frozen=True)
class StyleReference:
    """What styles are centred by.

    Attributes:
      mean, deviation: float64 [d], over the styles of real images; deviations are positive.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, reference: np.ndarray) -> "StyleReference":
        """Of styles [n, d] of real images, at least two.

        Raises:
          ValueError: fewer images.
        """
        reference = np.asarray(reference, np.float64)
        if len(reference) < 2:
            raise ValueError(f"styles are centred by at least two real images, got {len(reference)}")
        # A channel that never changes says nothing: any positive number will do.
        return cls(reference.mean(axis=0), np.maximum(reference.std(axis=0), 1e-6))

    def relevance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cosines of centred styles [n, d] and [n, d]: float64 [n] in [-1, 1]; 0 where one is the mean."""
        a, b = ((np.asarray(x, np.float64) - self.mean) / self.deviation for x in (a, b))
        return _cosine(a, b)


def semantic_consistency(
    params: Params, outputs: np.ndarray, references: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Area-weighted cosine of class means of high features, see this file.

    Args:
      params: of `mscaflax.nets.vgg.load_vgg16`.
      outputs, references: [n, h, w, 3], uint8 or float in [-1, 1] (rounded to 8 bits); h and w at least 16.
      labels: int [n, h, w] in 0..C, of both.
      num_classes: C.

    Returns:
      float64 [n] in [0, 1]; NaN where all pixels are unlabelled.
    """
    means = [class_means(params, to_float(to_uint8(x)), labels, num_classes) for x in (outputs, references)]
    return consistency(*means, labels, num_classes)


def consistency(
    ours: Sequence[np.ndarray], real: Sequence[np.ndarray], labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """`semantic_consistency` of images of which `class_means` gave `ours` and `real`."""
    area = np.stack([(labels == c).sum(axis=(1, 2)) for c in range(num_classes)], axis=-1).astype(np.float64)
    total = area.sum(axis=-1)
    score = np.zeros(len(labels))
    for a, b in zip(ours, real, strict=True):
        cosine = _cosine(np.asarray(a, np.float64), np.asarray(b, np.float64))
        score += (area * cosine).sum(axis=-1) / np.where(total > 0, total, np.nan)
    return score / len(SEMANTIC_LAYERS)


@functools.partial(jax.jit, static_argnames="num_classes")
def class_means(params: Params, images: jax.Array, labels: jax.Array, num_classes: int) -> list[jax.Array]:
    """Per layer of SEMANTIC_LAYERS, the mean feature of each class, [n, C, d], 0 for absent classes.

    `images` are [n, h, w, 3] in [-1, 1], `labels` int [n, h, w] in 0..C. A position belongs to each class by
    the share of its pixels.
    """
    found = vgg16_activations(params, images, SEMANTIC_LAYERS, precision=lax.Precision.HIGHEST)
    share = jax.nn.one_hot(labels, num_classes)  # unlabelled pixels are in no class
    means = []
    for name in SEMANTIC_LAYERS:
        x = found[name]
        weight = _pool(share, x.shape[1:3])
        total = jnp.maximum(weight.sum(axis=(1, 2)), 1e-6)[..., None]
        summed = jnp.einsum("nhwc,nhwd->ncd", weight, x, precision=lax.Precision.HIGHEST)
        means.append(summed / total)
    return means


def _pool(x, size):
    """Means of equal cells; rows and columns that VGG's pooling drops are dropped."""
    f = x.shape[1] // size[0]
    x = x[:, : size[0] * f, : size[1] * f]
    return x.reshape(x.shape[0], size[0], f, size[1], f, x.shape[-1]).mean(axis=(2, 4))


def _cosine(a, b):
    norm = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / np.maximum(norm, 1e-12)
