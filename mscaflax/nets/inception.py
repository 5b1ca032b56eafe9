"""Inception-v3 as FID uses it: the network of the TensorFlow graph of 2015-12-05, up to the final pooling.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer Vision", CVPR
2016. Beside the weights, it differs from torchvision's Inception-v3 in two points, as in pytorch-fid:
average pooling divides by the number of pixels inside the image, not by nine, and the last block pools by the
maximum. Inference only. Shapes: b batch, h and w height and width, c channels, NHWC.

Each convolution stands for a convolution without bias and the batch normalization behind it: its kernel and
its bias hold both. Modules are called as in pytorch-fid's weight file.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

FEATURES = 2048
SIZE = 299  # pixels on each side of the images that the network was trained with
MIN_SIZE = 75  # below it nothing is left for the last block

_average_pool = functools.partial(
    nn.avg_pool, window_shape=(3, 3), strides=(1, 1), padding="SAME", count_include_pad=False
)
_max_pool = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(1, 1), padding="SAME")
_halve = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding="VALID")


def _conv(x, features, name, window=(1, 1), stride=1, padding="SAME"):
    """relu(conv(x) + bias), a submodule of the module that calls it."""
    # Accelerators round the factors of float32 products by default; a metric cannot have that.
    conv = nn.Conv(features, window, stride, padding, precision=lax.Precision.HIGHEST, name=name)
    return nn.relu(conv(x))


def _chain(x, *layers):
    """Convolutions one after the other, each (name, features, window)."""
    for name, features, window in layers:
        x = _conv(x, features, name, window)
    return x


class BlockA(nn.Module):
    """Mixed_5b to 5d: [b, h, w, c] to [b, h, w, 224 + pool_features]."""

    pool_features: int

    @nn.compact
    def __call__(self, x):
        branch3x3 = (
            ("branch3x3dbl_1", 64, (1, 1)),
            ("branch3x3dbl_2", 96, (3, 3)),
            ("branch3x3dbl_3", 96, (3, 3)),
        )
        branches = (
            _conv(x, 64, "branch1x1"),
            _chain(x, ("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
            _chain(x, *branch3x3),
            _conv(_average_pool(x), self.pool_features, "branch_pool"),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockB(nn.Module):
    """Mixed_6a: [b, h, w, c] to [b, (h-1)//2, (w-1)//2, 480 + c]."""

    @nn.compact
    def __call__(self, x):
        double = _chain(x, ("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)))
        branches = (
            _conv(x, 384, "branch3x3", (3, 3), 2, "VALID"),
            _conv(double, 96, "branch3x3dbl_3", (3, 3), 2, "VALID"),
            _halve(x),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockC(nn.Module):
    """Mixed_6b to 6e: [b, h, w, c] to [b, h, w, 768], `width` channels within the 7x7 branches."""

    width: int

    @nn.compact
    def __call__(self, x):
        single = (
            ("branch7x7_1", self.width, (1, 1)),
            ("branch7x7_2", self.width, (1, 7)),
            ("branch7x7_3", 192, (7, 1)),
        )
        double = (
            ("branch7x7dbl_1", self.width, (1, 1)),
            ("branch7x7dbl_2", self.width, (7, 1)),
            ("branch7x7dbl_3", self.width, (1, 7)),
            ("branch7x7dbl_4", self.width, (7, 1)),
            ("branch7x7dbl_5", 192, (1, 7)),
        )
        branches = (
            _conv(x, 192, "branch1x1"),
            _chain(x, *single),
            _chain(x, *double),
            _conv(_average_pool(x), 192, "branch_pool"),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockD(nn.Module):
    """Mixed_7a: [b, h, w, c] to [b, (h-1)//2, (w-1)//2, 512 + c]."""

    @nn.compact
    def __call__(self, x):
        asymmetric = (
            ("branch7x7x3_1", 192, (1, 1)),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
        )
        branches = (
            _conv(_conv(x, 192, "branch3x3_1"), 320, "branch3x3_2", (3, 3), 2, "VALID"),
            _conv(_chain(x, *asymmetric), 192, "branch7x7x3_4", (3, 3), 2, "VALID"),
            _halve(x),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockE(nn.Module):
    """Mixed_7b and 7c: [b, h, w, c] to [b, h, w, 2048].

    Attributes:
      max_pool: whether the pooling branch takes the maximum, as in 7c, or the average.
    """

    max_pool: bool

    @nn.compact
    def __call__(self, x):
        single = _conv(x, 384, "branch3x3_1")
        double = _chain(x, ("branch3x3dbl_1", 448, (1, 1)), ("branch3x3dbl_2", 384, (3, 3)))
        pooled = _max_pool(x) if self.max_pool else _average_pool(x)
        branches = (
            _conv(x, 320, "branch1x1"),
            _conv(single, 384, "branch3x3_2a", (1, 3)),
            _conv(single, 384, "branch3x3_2b", (3, 1)),
            _conv(double, 384, "branch3x3dbl_3a", (1, 3)),
            _conv(double, 384, "branch3x3dbl_3b", (3, 1)),
            _conv(pooled, 192, "branch_pool"),
        )
        return jnp.concatenate(branches, axis=-1)


class InceptionV3(nn.Module):
    """The features that FID compares.

    A call takes float32 images [b, h, w, 3] in [-1, 1], h and w at least 75, and returns float32 [b, 2048],
    the means over positions of the last block's activations, at least 0. FID asks for h = w = 299.

    Raises:
      ValueError: images of another rank, or too small.
    """

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        if images.ndim != 4 or images.shape[-1] != 3 or min(images.shape[1:3]) < MIN_SIZE:
            raise ValueError(
                f"images must be [b, h, w, 3] with h and w at least {MIN_SIZE}, got {images.shape}"
            )
        x = _conv(images, 32, "Conv2d_1a_3x3", (3, 3), 2, "VALID")
        x = _conv(x, 32, "Conv2d_2a_3x3", (3, 3), 1, "VALID")
        x = _halve(_conv(x, 64, "Conv2d_2b_3x3", (3, 3)))
        x = _conv(x, 80, "Conv2d_3b_1x1")
        x = _halve(_conv(x, 192, "Conv2d_4a_3x3", (3, 3), 1, "VALID"))
        for name, pool_features in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(pool_features, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = BlockC(width, name=name)(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(max_pool=False, name="Mixed_7b")(x)
        x = BlockE(max_pool=True, name="Mixed_7c")(x)
        return x.mean(axis=(1, 2))
