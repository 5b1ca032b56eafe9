"""A trained model as a TensorFlow SavedModel, for programs and servers of TensorFlow.

`jax2tf` puts the StableHLO of `mscaflax.apps.export` into one operation of TensorFlow, which compiles it by
its own XLA.
"""

import json
import shutil
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
from mscaflax.errors import UserError
from mscaflax.files import expanded


def check_new_folder(output):
    """The path of a folder that `export_savedmodel` can make.

    Raises:
      UserError: it exists, or would lie in no folder.
    """
    output = expanded(output)
    if output.exists():
        raise UserError(f"--output={output} exists: choose a new folder")
    if not output.parent.is_dir():
        raise UserError(f"--output={output} cannot be made: {output.parent} is no folder")
    return output


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
      UserError: as check_new_folder; or the model has diverged.
    """
    output = check_new_folder(output)
    weights = flat_weights(model)
    check_finite(weights)
    temporary = output.with_name(f".{output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _save(model, weights, temporary)
        extra = temporary / "assets.extra"
        extra.mkdir()
        (extra / "model.json").write_text(json.dumps(describe(model), indent=1), encoding="utf-8")
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
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
