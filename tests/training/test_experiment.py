"""Every shipped config builds and its step has types; wrong values are said in a line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mscaflax.config import load_config, shipped_configs
from mscaflax.errors import UserError
from mscaflax.nets.vgg import load_vgg16
from mscaflax.training.experiment import build_experiment
from mscaflax.training.state import init_state, neutral_statistics
from mscaflax.training.step import train_step

# Classes of the datasets that the configs name, and generator parameters in millions.
EXPECTED = {
    "coco_stuff256": (182, 30, 60),
    "photos64": (12, 3, 5),
    "scenes64": (12, 1.5, 3),
    "tiny": (12, 0, 0.2),
}


def abstract_state(experiment):
    return jax.eval_shape(functools.partial(init_state, experiment), jax.eval_shape(neutral_statistics))


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize("name", sorted(shipped_configs().keys() - {"base"}))
def test_shipped_config_has_a_train_step(name):
    config = load_config([f"--config={name}"])
    num_classes, least, most = EXPECTED[name]
    experiment = build_experiment(config, num_classes)
    state = abstract_state(experiment)
    millions = sum(np.prod(x.shape) for x in jax.tree.leaves(state.generator)) / 1e6
    assert least <= millions <= most
    assert {x.dtype for x in jax.tree.leaves((state.generator, state.discriminator, state.ema))} == {
        jnp.dtype(jnp.float32)
    }
    b, s = config.train.batch_size, config.data.size
    photo, label = jax.ShapeDtypeStruct((b, s, s, 3), jnp.float32), jax.ShapeDtypeStruct((b, s, s), jnp.int32)
    batch = {"image": photo, "label": label, "exemplar": photo, "exemplar_label": label}
    vgg = jax.eval_shape(lambda: jax.tree.map(lambda x: jnp.zeros(x.shape), load_vgg16()))
    after, metrics = jax.eval_shape(functools.partial(train_step, experiment), state, vgg, batch)
    # What is donated must fit what comes back.
    assert types(after) == types(state)
    assert {(x.shape, x.dtype) for x in metrics.values()} == {((), jnp.dtype(jnp.float32))}
    weights = {f"loss/{loss}" for loss in config.loss if loss != "perceptual_taps"}
    assert weights | {"loss/generator", "loss/discriminator"} <= metrics.keys()


def test_every_model_value_reaches_the_network():
    config = load_config(
        [
            "--config=tiny",
            "--config.model.num_regions=7",
            "--config.model.masking=false",
            "--config.model.mask_fill=zero",
            "--config.model.modulation=spade",
            "--config.model.normalization=position",
            "--config.model.noise=false",
            "--config.model.remat=true",
            "--config.model.fold_columns=true",
            "--config.model.convolutions=true",
            "--config.train.tpu_options=('xla_one=1', 'xla_two=a=b')",
            "--config.model.synthesis_noise=(0.0, 0.5, 1.0, 1.0, 2.0)",
            "--config.train.accumulate=4",
            "--config.model.dtype=bfloat16",
            "--config.model.attention_scales=(True, False, True, True, False)",
            "--config.discriminator.num_scales=3",
            "--config.loss.l1=2.5",
        ]
    )
    experiment = build_experiment(config, 9)
    for key, value in config.model.items():
        found = getattr(experiment.network, key)
        assert found == (jnp.bfloat16 if key == "dtype" else value)
    assert experiment.network.num_classes == experiment.discriminator.num_classes == 9
    assert experiment.discriminator.num_scales == 3 and experiment.discriminator.fold_columns
    assert experiment.tpu_options == (("xla_one", "1"), ("xla_two", "a=b"))
    assert experiment.dtype == experiment.discriminator.dtype == jnp.bfloat16
    assert experiment.loss.l1 == 2.5 and experiment.accumulate == 4
    assert (experiment.size, experiment.seed) == (config.data.size, config.seed)


@pytest.mark.parametrize(
    "override, said",
    [
        ("model.mask_fill=mean", "config.model.mask_fill is 'mean'; choose one of zero, global"),
        ("model.modulation=film", "config.model.modulation is 'film'; choose one of spade, decoupled"),
        (
            "model.normalization=batch",
            "config.model.normalization is 'batch'; choose one of instance",
        ),
        ("model.dtype=float16", "config.model.dtype is 'float16'; choose one of float32, bfloat16"),
        ("model.image_channels=(8, 8)", "config.model.image_channels has 2 entries; give 5"),
        ("model.label_channels=()", "config.model.label_channels has 0 entries; give 5"),
        ("model.generator_channels=(8, 8, 8, 8, 8, 8)", "config.model.generator_channels has 6 entries"),
        ("model.hidden_channels=(8,)", "config.model.hidden_channels has 1 entries"),
        ("loss.perceptual_taps=(1.0, 1.0)", "config.loss.perceptual_taps has 2 entries; give 5"),
        ("loss.perceptual_taps=(1.0, 1.0, -1.0, 0.0, 1.0)", "give finite numbers from 0 on"),
        ("model.synthesis_noise=(0.0, 1.0)", "config.model.synthesis_noise has 2 entries"),
        ("model.attention_scales=(True,)", "config.model.attention_scales has 1 entries"),
        ("model.num_regions=0", "config.model.num_regions is 0; it must be at least 1"),
        ("discriminator.channels=()", "config.discriminator needs at least one hidden layer"),
        ("discriminator.num_scales=0", "config.discriminator needs at least one hidden layer and one scale"),
        (
            "discriminator.num_scales=4",
            "too many layers or scales for patches of 32: the last hidden layer would",
        ),
        ("data.size=40", "config.data.size is 40; it must be a multiple of 16"),
        ("data.size=16", "config.data.size is 16; it must be a multiple of 16, at least 32"),
        (
            "train.tpu_options=('xla_one',)",
            "config.train.tpu_options is ('xla_one',); give each as 'xla_NAME=",
        ),
        ("train.tpu_options=(1,)", "config.train.tpu_options is (1,); give each as 'xla_NAME=VALUE'"),
        ("optimizer.decay_from=1.5", "config.optimizer.decay_from is 1.5; it must lie in 0..1"),
        ("optimizer.decay_from=-0.1", "config.optimizer.decay_from is -0.1"),
    ],
)
def test_wrong_values_are_user_errors(override, said):
    with pytest.raises(UserError) as error:
        build_experiment(load_config(["--config=tiny", f"--config.{override}"]), 5)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "decay_from, expected", [(0.5, [1, 1, 0.8, 0.2, 0]), (1.0, [1] * 5), (0.0, [1, 0.5, 0.4, 0.1, 0])]
)
def test_rates_fall_linearly_to_zero(decay_from, expected):
    config = load_config(
        ["--config=tiny", "--config.train.steps=100", f"--config.optimizer.decay_from={decay_from}"]
    )
    experiment = build_experiment(config, 5)
    params = {"x": jnp.ones(3)}
    for optimizer, rate in (
        (experiment.generator_optimizer, config.optimizer.generator_rate),
        (experiment.discriminator_optimizer, config.optimizer.discriminator_rate),
    ):
        state = optimizer.init(params)
        for step, share in zip((0, 50, 60, 90, 100), expected, strict=True):
            # The count that both the moments and the schedule keep.
            at = jax.tree.map(lambda x, step=step: jnp.asarray(step, x.dtype) if x.ndim == 0 else x, state)
            updates, _ = optimizer.update({"x": jnp.full(3, 2.0)}, at, params)
            # Without a history, Adam's step is the rate times a factor of the bias correction of step 1.
            correction = ((1 - 0.9 ** (step + 1)) / (1 - 0.9)) ** 0.5
            np.testing.assert_allclose(updates["x"], -rate * share * correction, rtol=1e-4, atol=1e-12)
