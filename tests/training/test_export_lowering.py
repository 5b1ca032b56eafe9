"""What `jax.export` makes of the train step for accelerators that are not there."""

import jax
import pytest

from mscaflax.config import load_config
from mscaflax.training.aot import abstract_arguments
from mscaflax.training.experiment import build_experiment
from mscaflax.training.sharding import make_mesh
from mscaflax.training.step import make_train_step


@pytest.mark.slow  # the default step lowers in test_aot.py
@pytest.mark.parametrize("options", [[], ["--config.train.accumulate=2", "--config.model.remat=True"]])
def test_the_train_step_lowers_as_it_is(options):
    """One program for both kinds, with the types that the loop hands over, in and out."""
    experiment = build_experiment(load_config(["--config=tiny", *options]), 5)
    arguments = abstract_arguments(experiment, 4)
    step = make_train_step(experiment, make_mesh(jax.devices()[:1]))
    exported = jax.export.export(step, platforms=("cuda", "tpu"))(*arguments)
    assert exported.platforms == ("cuda", "tpu") and exported.nr_devices == 1
    given = [(x.shape, x.dtype) for x in jax.tree.leaves(arguments)]
    assert [(x.shape, x.dtype) for x in exported.in_avals] == given
    count = len(jax.tree.leaves(arguments[0]))
    assert [(x.shape, x.dtype) for x in exported.out_avals[:count]] == given[:count]
    assert all(x.shape == () and x.dtype == "float32" for x in exported.out_avals[count:])
    # Whoever runs it elsewhere must find there what it calls.
    assert "stablehlo.convolution" in exported.mlir_module()
    assert "custom_call" not in exported.mlir_module().replace("@Sharding", "")
