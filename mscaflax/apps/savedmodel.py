"""A trained model as a TensorFlow SavedModel, for programs and servers of TensorFlow.

`jax2tf` puts the StableHLO of `mscaflax.apps.export` into one operation of TensorFlow, which compiles it by
its own XLA.
"""

import json
import warnings

from mscaflax.apps.export import (
    PLATFORMS,
    check_finite,
    describe,
    flat_weights,
    generator,
    sizes,
    without_places,
)
from mscaflax.data.tensorflow import import_tensorflow
from mscaflax.files import folder_at_once, new_folder


def export_savedmodel(model, output):
    """Writes a model as a SavedModel; its description lies in `assets.extra/model.json`.

    The signature `serving_default` takes `label`, `exemplar`, `exemplar_label` and `seed` as the program of
    `mscaflax.apps.export.export_program` does, and returns `image`. The weights are variables. There is no
    gradient: TensorFlow does not take the one of this program.

    Args:
      model: a mscaflax.training.model.Model.
      output: the new folder; it appears when it is whole.

    Returns:
      The number of bytes in the folder.

    Raises:
      UserError: as mscaflax.files.new_folder; or the model has diverged.
    """
    output = new_folder("--output", output)
    weights = flat_weights(model)
    check_finite(weights)
    with folder_at_once(output) as temporary:
        _save(model, weights, temporary)
        extra = temporary / "assets.extra"
        extra.mkdir()
        (extra / "model.json").write_text(json.dumps(describe(model), indent=1), encoding="utf-8")
    return sum(file.stat().st_size for file in output.rglob("*") if file.is_file())


def _save(model, weights, folder):
    tf = import_tensorflow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TensorFlow, about itself
        from jax.experimental import jax2tf

    multiple = model.network.size_multiple
    (rows, columns, exemplar_rows, exemplar_columns), constraints = sizes(multiple)
    target = f"batch, {multiple}*{rows}, {multiple}*{columns}"
    exemplar = f"batch, {multiple}*{exemplar_rows}, {multiple}*{exemplar_columns}"
    generate = jax2tf.convert(
        generator(model),
        polymorphic_shapes=["...", target, f"{exemplar}, 3", exemplar, "..."],
        polymorphic_constraints=constraints,
        with_gradient=False,
        native_serialization_platforms=PLATFORMS,
    )
    module = tf.Module()
    module.weights = {name: tf.Variable(x, trainable=False) for name, x in weights.items()}
    signature = [
        tf.TensorSpec([None, None, None], tf.int32, "label"),
        tf.TensorSpec([None, None, None, 3], tf.float32, "exemplar"),
        tf.TensorSpec([None, None, None], tf.int32, "exemplar_label"),
        tf.TensorSpec([], tf.uint32, "seed"),
    ]

    def serve(label, exemplar, exemplar_label, seed):
        return {"image": generate(dict(module.weights), label, exemplar, exemplar_label, seed)}

    module.serve = tf.function(serve, input_signature=signature, autograph=False, jit_compile=True)
    with without_places():
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
