"""Photos with label maps at 64²: name the dataset by --config.data.name=NAME."""

from mscaflax.configs import base


def get_config():
    config = base.get_config()
    config.data.name = "facade"
    return config
