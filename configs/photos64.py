"""Photos with label maps at 64²: name the dataset by --config.data.name=NAME."""

from mscaflax.configs import base


def get_config():
    config = base.get_config()
    config.data.name = "facade"
    config.data.flip = True  # a few hundred photos are seen many times
    config.loss.l1 = 10.0
    config.optimizer.decay_from = 0.6
    config.train.steps = 3_600  # docs/results.md tells how long that takes
    return config
