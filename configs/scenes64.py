"""The embedded scenes at 64²: what `launch/demo` trains."""

from mscaflax.configs import base


def get_config():
    return base.get_config()
