"""AlexNet features, for LPIPS-Alex: the metric whose network nothing here is trained with.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv 1404.5997 (the variant of
torchvision, which LPIPS uses), convolutions only. NHWC; the parameters are always an argument.
"""

import jax
import jax.numpy as jnp
from jax import lax

from mscaflax.nets.vgg import Params, conv_relu, normalize_images

# Smaller images leave nothing after the second pooling.
MIN_SIZE = 31
TAP_CHANNELS = (64, 192, 384, 256, 256)
KERNELS = ((11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256))


def alexnet_taps(
    params: Params,
    images: jax.Array,
    *,
    dtype: jnp.dtype = jnp.float32,
    precision: lax.Precision | None = None,
) -> tuple[jax.Array, ...]:
    """Features of AlexNet after each of its five activations.

    Args:
      params: the five convolutions, a list of {"kernel": [kh, kw, in, out], "bias": [out]}.
      images: [b, h, w, 3] in [-1, 1], h and w at least 31; normalized for ImageNet inside.
      dtype: the dtype that the convolutions compute in.
      precision: of the convolutions.

    Returns:
      Five arrays [b, ~h/4, ~w/4, 64], [b, ~h/8, ~w/8, 192], then [b, ~h/16, ~w/16, c] with c = 384, 256, 256;
      at least 0, in `dtype`.

    Raises:
      ValueError: images of another rank or smaller than 31 pixels.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or min(images.shape[1:3]) < MIN_SIZE:
        raise ValueError(f"images must be [b, h, w, 3] with h and w at least {MIN_SIZE}, got {images.shape}")
    x = normalize_images(images).astype(dtype)
    geometry = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))
    taps = []
    for conv, (stride, padding, pool_before) in zip(params, geometry, strict=True):
        if pool_before:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding="VALID")
        x = conv_relu(x, conv, stride=stride, padding=padding, dtype=dtype, precision=precision)
        taps.append(x)
    return tuple(taps)
