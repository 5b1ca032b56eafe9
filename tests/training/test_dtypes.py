"""Walks the train step's program: in bfloat16, no product over positions is left in float32."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest

from mscaflax.config import load_config
from mscaflax.nets.vgg import load_vgg16
from mscaflax.training.experiment import build_experiment
from mscaflax.training.state import init_state, neutral_statistics
from mscaflax.training.step import train_step

# Products that stay in float32: γ's perceptron over K regions, the power iteration of the spectral norms, the
# three colours of the image.
FLOAT32_PRODUCTS = re.compile(r"/gate_(hidden|out)(/|$)|\._spectral_normalize|decode/bhwi,ci->bhwc")


def equations(jaxpr):
    """All equations of a jaxpr and of those inside it (jit, custom_jvp, custom_vjp, scan, cond ...)."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(inner):
                yield from equations(getattr(inner, "jaxpr", inner))


def is_program(value):
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def products(function, *args):
    """(primitive, name of the place, dtypes of the operands) of every product.

    A result in float32 is the sum of one that is rounded where it is made.
    """
    for equation in equations(jax.make_jaxpr(function)(*args).jaxpr):
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            dtypes = {str(x.aval.dtype) for x in equation.invars}
            yield equation.primitive.name, str(equation.source_info.name_stack), dtypes


def step_products(*overrides, config="tiny", num_classes=5):
    config = load_config([f"--config={config}", *overrides])
    experiment = build_experiment(config, num_classes)
    state = jax.eval_shape(functools.partial(init_state, experiment), jax.eval_shape(neutral_statistics))
    b, s = config.train.batch_size, config.data.size
    photo, label = jax.ShapeDtypeStruct((b, s, s, 3), jnp.float32), jax.ShapeDtypeStruct((b, s, s), jnp.int32)
    batch = {"image": photo, "label": label, "exemplar": photo, "exemplar_label": label}
    vgg = jax.eval_shape(lambda: jax.tree.map(lambda x: jnp.zeros(x.shape), load_vgg16()))
    return list(products(functools.partial(train_step, experiment), state, vgg, batch))


def assert_bfloat16(found):
    # Both networks and VGG, forward and backward.
    assert sum(primitive == "conv_general_dilated" for primitive, *_ in found) > 150
    wide = {
        (primitive, place)
        for primitive, place, dtypes in found
        if dtypes != {"bfloat16"}
        and not (primitive == "dot_general" and FLOAT32_PRODUCTS.search(place) and dtypes == {"float32"})
    }
    assert wide == set()


@pytest.mark.parametrize("modulation", ["decoupled", "spade"])
def test_bfloat16_reaches_every_convolution(modulation):
    assert_bfloat16(step_products("--config.model.dtype=bfloat16", f"--config.model.modulation={modulation}"))


@pytest.mark.slow
def test_bfloat16_reaches_every_convolution_of_the_config_for_tpus():
    two = "--config.train.batch_size=2"
    assert_bfloat16(step_products(two, config="coco_stuff256", num_classes=182))


def test_float32_means_float32():
    assert {kind for *_, dtypes in step_products() for kind in dtypes} == {"float32"}


def test_the_walk_sees_inner_programs():
    def inner(x):
        return jax.lax.scan(lambda c, _: (jnp.where(c > 0, c @ c, c), None), x, None, length=2)[0]

    def program(x):
        branch = jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, jax.jit(jnp.sin), x)
        return jax.checkpoint(inner)(x) + branch

    assert len(list(products(jax.grad(lambda x: program(x).sum()), jnp.ones((3, 3))))) >= 5
