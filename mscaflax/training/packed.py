"""Packed models: the folder of a trained model without what only training needs, small enough to hand on.

A packed model holds `config.json`, `classes.json`, `dataset.json`, `model.safetensors` (bfloat16: half of a
checkpoint's size), and the segmenters in the same form below `segmenter/`.
Wherever a trained workdir can be read, so can a packed model.
"""

import json
import shutil

import jax
import jax.numpy as jnp

from mscaflax.config import config_to_json
from mscaflax.files import expanded, folder_at_once, new_folder, write_atomically
from mscaflax.training.description import load_description, stored_fingerprint
from mscaflax.training.model import load_model
from mscaflax.training.segmenter import SCORES, load_segmenter, segmenter_folder
from mscaflax.training.weights_file import FILE, write_weights


def pack(workdir, output, step=None):
    """Packs the model of a workdir and its trained segmenters.

    Parameters are stored in bfloat16, what the statistics of the VGG taps hold in float32.

    Args:
      workdir: a folder of `mscaflax train`.
      output: the new folder; it must not exist, and appears when it is whole.
      step: which checkpoint; None for the last.

    Returns:
      The number of bytes in the folder.

    Raises:
      UserError: there is no model, or `output` exists or cannot be made.
    """
    output, workdir = new_folder("--output", output), expanded(workdir)
    model = load_model(workdir, step)
    with folder_at_once(output) as temporary:
        _pack_one(workdir, temporary, {"ema": model.params, "statistics": model.statistics}, model.step)
        for scores in sorted((workdir / "segmenter").glob(f"seed*/{SCORES}")):
            if not scores.parent.name.removeprefix("seed").isdecimal():
                continue
            segmenter = load_segmenter(workdir, int(scores.parent.name.removeprefix("seed")))
            folder = segmenter_folder(temporary, segmenter.seed)
            folder.mkdir(parents=True)
            tree = {"params": segmenter.params, "statistics": segmenter.statistics}
            _pack_one(scores.parent, folder, tree, segmenter.step)
            shutil.copyfile(scores, folder / SCORES)
    return sum(file.stat().st_size for file in output.rglob("*") if file.is_file())


def _pack_one(source, folder, tree, step):
    config, classes = load_description(source)
    config.data.data_dir = ""  # where the dataset lay here tells others nothing
    write_atomically(folder / "config.json", config_to_json(config))
    write_atomically(folder / "classes.json", json.dumps(classes.to_json(), indent=1))
    fingerprint = {"fingerprint": stored_fingerprint(source)}
    write_atomically(folder / "dataset.json", json.dumps(fingerprint, indent=1))
    parameters = {name for name in tree if name != "statistics"}
    small = {name: jax.tree.map(_as_bfloat16, tree[name]) for name in parameters}
    write_weights(folder / FILE, {**tree, **small}, step)


def _as_bfloat16(x):
    return x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x
