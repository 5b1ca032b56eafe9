"""The one place where TensorFlow and TFDS enter: for the input pipeline, never for the accelerator.

Both are imported on demand, so that synthesis and `import mscaflax` start without them.
"""

import os
from types import ModuleType


def import_tensorflow() -> ModuleType:
    """Imports TensorFlow with every accelerator hidden from it.

    JAX owns the accelerator; TensorFlow would otherwise reserve its memory on the first op. Calling it
    again costs nothing.

    Returns:
        The `tensorflow` module.

    Raises:
        RuntimeError: another part of the program has already initialized TensorFlow on an accelerator.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # On some processors TensorFlow rounds otherwise by default, and says so at every start.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        if tf.config.get_visible_devices(kind):
            tf.config.set_visible_devices([], kind)
    return tf


def import_tfds() -> ModuleType:
    """Imports TensorFlow Datasets, with TensorFlow kept off the accelerator.

    Returns:
        The `tensorflow_datasets` module.
    """
    import_tensorflow()
    import tensorflow_datasets as tfds

    return tfds
