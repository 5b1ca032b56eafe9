"""A trained model as one file for programs that do not have this package.

The file is a .zip of three members, none of which is code of Python or a pickle:

    model.json     what a user must know: classes, palette, legal sizes, training step, config
    program.bin    StableHLO, of `jax.export`: `generate` for every batch, height and width
    weights.npz    its weights by name, float32: generator, tap statistics, VGG-16

The weights (60 MB and more) stand beside the program: as constants inside they would be compiled into every
program of another size, again for each.
"""

import contextlib
import io
import json
import zipfile
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from mscaflax.apps.exported import FORMAT, MODEL, PROGRAM, WEIGHTS
from mscaflax.config import config_to_json
from mscaflax.errors import UserError
from mscaflax.files import expanded, writable_file, write_atomically
from mscaflax.nets.layers import MAX_SIDE
from mscaflax.training.model import forward
from mscaflax.training.weights_file import flat

PLATFORMS = ("cpu", "cuda", "tpu")


def check_output(output):
    """The path of a file that `export_model` can write.

    Raises:
      UserError: it does not end in .zip, or as mscaflax.files.writable_file.
    """
    output = expanded(output)
    if output.suffix.lower() != ".zip":
        raise UserError(f"--output={output} must end in .zip: that is what it will be")
    return writable_file("--output", output)


def export_model(model, output):
    """Writes a model as one file, for `mscaflax.load_exported` or for JAX alone (docs/deploy.md).

    Args:
      model: a mscaflax.training.model.Model.
      output: the file, ending in .zip; it is replaced at once or not at all.

    Returns:
      Its size in bytes.

    Raises:
      UserError: as check_output; or the model has diverged.
    """
    output = check_output(output)
    weights = flat_weights(model)
    check_finite(weights)
    arrays = io.BytesIO()
    np.savez(arrays, **weights)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        # Weights hardly shrink: deflated they would save a twelfth, and load slower.
        for name, data, compression in (
            (MODEL, json.dumps(describe(model), indent=1), zipfile.ZIP_DEFLATED),
            (PROGRAM, bytes(export_program(model).serialize()), zipfile.ZIP_DEFLATED),
            (WEIGHTS, arrays.getvalue(), zipfile.ZIP_STORED),
        ):
            # A ZipInfo of its own has a fixed date: the same model gives the same file.
            file.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    write_atomically(output, content.getvalue())
    return output.stat().st_size


def export_program(model):
    """`Model.generate` as a jax.export.Exported for all PLATFORMS.

    Its arguments:
      weights: {name: float32 array}, the names of `flat`.
      label: [b, h, w] int32 in 0..C.
      exemplar: [b, h', w', 3] float32 in [-1, 1].
      exemplar_label: [b, h', w'] int32 in 0..C.
      seed: uint32 scalar.

    It returns [b, h, w, 3] float32 in [-1, 1]. b is free; h, w, h', w' are any multiples of
    `network.size_multiple`, from twice it up to MAX_SIDE.
    """
    weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flat(_tree(model)).items()}
    with without_places():
        return export.export(jax.jit(generator(model)), platforms=PLATFORMS)(
            weights, *_abstract_inputs(model.network.size_multiple)
        )


@contextlib.contextmanager
def without_places():
    """Programs lowered inside do not name the files of the code behind them: where it lies is private."""
    name = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, name)
    jax.config.update(name, ".*")
    try:
        yield
    finally:
        jax.config.update(name, before)


def check_finite(weights):
    """Raises UserError unless all of {name: array} is finite."""
    for name, x in weights.items():
        if not np.isfinite(x).all():
            raise UserError(f"{name} is not finite: the training of this model has diverged")


def flat_weights(model):
    """The first argument of the program: {name: float32 numpy array}."""
    return {name: np.asarray(x) for name, x in flat(_tree(model)).items()}


def generator(model):
    """The function behind `export_program`, not yet traced."""
    network, tree = model.network, _tree(model)
    names, structure = list(flat(tree)), jax.tree.structure(tree)

    def generate(weights, label, exemplar, exemplar_label, seed):
        parts = jax.tree.unflatten(structure, [weights[name] for name in names])
        batch = {"label": label, "exemplar": exemplar, "exemplar_label": exemplar_label}
        return forward(network, **parts, batch=batch, seed=seed).image

    return generate


def describe(model):
    """What `model.json` holds: a dict of plain JSON values."""
    config = model.config.copy_and_resolve_references()
    config.data.data_dir = ""  # where the dataset lay here tells others nothing
    multiple = model.network.size_multiple
    return {
        "format": FORMAT,
        **model.classes.to_json(),
        "unlabelled": model.classes.num_classes,
        "size_multiple": multiple,
        "min_side": 2 * multiple,
        "max_side": MAX_SIDE,
        "patch_size": config.data.size,
        "step": model.step,
        "platforms": list(PLATFORMS),
        "versions": {name: version(name) for name in ("mscaflax", "jax")},
        "config": json.loads(config_to_json(config)),
    }


def sizes(multiple):
    """Names of the free sizes for error messages, and what bounds them, in multiples."""
    names = ("rows", "columns", "exemplar_rows", "exemplar_columns")
    return names, [f"{name} >= 2" for name in names] + [f"{name} <= {MAX_SIDE // multiple}" for name in names]


def _abstract_inputs(multiple):
    names, constraints = sizes(multiple)
    batch, *sides = export.symbolic_shape(f"batch, {', '.join(names)}", constraints=constraints)
    h, w, exemplar_h, exemplar_w = (multiple * side for side in sides)
    return (
        jax.ShapeDtypeStruct((batch, h, w), jnp.int32),
        jax.ShapeDtypeStruct((batch, exemplar_h, exemplar_w, 3), jnp.float32),
        jax.ShapeDtypeStruct((batch, exemplar_h, exemplar_w), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.uint32),
    )


def _tree(model):
    return {"params": model.params, "statistics": model.statistics, "vgg": model.vgg}
