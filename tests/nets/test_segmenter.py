import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from mscaflax.nets.encoders import TapStatistics
from mscaflax.nets.segmenter import SegmentationDecoder
from mscaflax.nets.vgg import TAP_CHANNELS

DECODER = SegmentationDecoder(num_classes=7, channels=(4, 6, 8, 8, 8))
APPLY = jax.jit(DECODER.apply)  # one program for each shape, not one for each operation


def make_taps(height, width, seed=0, batch=1):
    rng = np.random.default_rng(seed)
    return [
        rng.standard_normal((batch, height >> i, width >> i, c)).astype(np.float32)
        for i, c in enumerate(TAP_CHANNELS)
    ]


def make_statistics(mean=0.0, deviation=1.0):
    return TapStatistics(
        mean=tuple(np.full(c, mean, np.float32) for c in TAP_CHANNELS),
        deviation=tuple(np.full(c, deviation, np.float32) for c in TAP_CHANNELS),
    )


@pytest.fixture(scope="module")
def variables():
    return jax.jit(DECODER.init)(jax.random.key(0), make_taps(32, 32), make_statistics())


@pytest.mark.parametrize(("height", "width"), [(32, 48), (16, 16), (33, 47), (31, 18)])
def test_every_pixel_gets_logits_at_any_size(height, width, variables):
    logits = APPLY(variables, make_taps(height, width), make_statistics())
    assert logits.shape == (1, height, width, 7) and logits.dtype == jnp.float32
    assert np.isfinite(logits).all() and (np.std(logits, axis=(1, 2)) > 1e-3).all()


@pytest.mark.parametrize("scale", range(5))
def test_every_tap_is_heard_near_its_place(scale, variables):
    taps = make_taps(64, 64)
    before = APPLY(variables, taps, make_statistics())
    taps[scale] = taps[scale].copy()
    taps[scale][:, 0, 0] += 1.0
    change = np.abs(APPLY(variables, taps, make_statistics()) - before).max(axis=(0, 3))
    # Five 3×3 blocks, the coarsest over 16 pixels a position: the far corner does not hear the finer taps.
    assert change[: 2**scale, : 2**scale].max() > 1e-4
    if scale < 3:
        assert change[-16:, -16:].max() == 0


def test_taps_are_standardized_by_the_statistics(variables):
    taps = make_taps(32, 32)
    moved = [3 * tap + 5 for tap in taps]
    np.testing.assert_allclose(
        APPLY(variables, moved, make_statistics(5.0, 3.0)),
        APPLY(variables, taps, make_statistics()),
        atol=2e-4,
    )


def test_images_of_a_batch_do_not_hear_each_other(variables):
    pair = make_taps(32, 32, batch=2)
    both = APPLY(variables, pair, make_statistics())
    alone = APPLY(variables, [tap[1:] for tap in pair], make_statistics())
    np.testing.assert_allclose(both[1:], alone, atol=1e-5)


def equations(jaxpr):
    """Those of a program and of the programs inside."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def test_bfloat16_reaches_the_convolutions_and_logits_stay_float32(variables):
    decoder = SegmentationDecoder(num_classes=7, channels=(4, 6, 8, 8, 8), dtype=jnp.bfloat16)
    program = jax.make_jaxpr(decoder.apply)(variables, make_taps(32, 32), make_statistics())
    convolutions = [e for e in equations(program.jaxpr) if e.primitive.name == "conv_general_dilated"]
    # Each with four thin ones for its border.
    assert len(convolutions) == 5 * 5
    assert {v.aval.dtype for e in convolutions for v in e.invars} == {jnp.dtype(jnp.bfloat16)}
    assert program.out_avals[0].dtype == jnp.float32
