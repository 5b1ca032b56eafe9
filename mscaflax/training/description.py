"""What a workdir says of its run beside the checkpoints: the config, the classes, which dataset."""

import json

from mscaflax.config import config_difference, config_to_json, read_config, with_defaults
from mscaflax.data.classes import read_classes_file
from mscaflax.errors import UserError
from mscaflax.files import expanded, write_atomically
from mscaflax.training.weights_file import FILE

# Settings that may change when a run goes on; every other one would make it another run. `train.steps` is
# free only where the rates do not fall towards its end.
FREE_SETTINGS = (
    "mesh.fsdp",
    "model.convolutions",
    "model.fold_columns",
    "model.remat",
    "model.synthesis_noise",
    "train.accumulate",
    "train.tpu_options",
    "data.data_dir",
    "data.val_split",
    "train.steps",
    "train.log_every",
    "train.health_every",
    "train.sample_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
)


def make_workdir(workdir):
    """The path of a workdir, which is made if need be; UserError if it cannot be."""
    workdir = expanded(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--workdir={workdir} is not a folder: choose another") from None
    return workdir


def store_description(workdir, config, classes, fingerprint, free=None, remedy="choose another --workdir"):
    """Writes config, classes and dataset into the workdir, or checks that a resumed run has the same.

    Args:
      workdir: the folder of the run, made if need be.
      config: the ConfigDict of the run.
      classes: the ClassTable of its dataset.
      fingerprint: that `mscaflax prepare` gave the dataset: other photos make another run.
      free: settings, or groups of them, that may change; None for FREE_SETTINGS and the segmenter's.
      remedy: what to do where they differ, for the messages.

    Raises:
      UserError: the workdir cannot be made, or is a packed model; or holds checkpoints of another config
        (but for what is free), of other classes or of other photos.
    """
    workdir = make_workdir(workdir)
    if (workdir / FILE).is_file():
        raise UserError(f"{workdir} is a packed model, whose training cannot go on: {remedy}")
    if saved_steps(workdir):
        if not (workdir / "config.json").is_file():
            raise UserError(f"{workdir} holds checkpoints but no config.json: {remedy}")
        stored, stored_classes = load_description(workdir)
        if free is None:
            free = [key for key in FREE_SETTINGS if key != "train.steps" or config.optimizer.decay_from == 1]
            free.append("segmenter")
        difference = config_difference(stored, config, ignore=free)
        if difference:
            raise UserError(
                f"{workdir} holds a run with another config ({'; '.join(difference)}): "
                f"{remedy}, or the settings it began with"
            )
        if stored_classes != classes:
            raise UserError(f"{workdir} holds a run with other classes: {remedy}")
        if stored_fingerprint(workdir) not in (None, fingerprint):
            raise UserError(
                f"the dataset {config.data.name} was prepared anew since {workdir} was begun: {remedy}"
            )
    write_atomically(workdir / "classes.json", json.dumps(classes.to_json(), indent=1))
    write_atomically(workdir / "dataset.json", json.dumps({"fingerprint": fingerprint}, indent=1))
    write_atomically(workdir / "config.json", config_to_json(config))


def stored_fingerprint(workdir):
    """The fingerprint of the dataset that a workdir's run was trained on; None if it is not known.

    Raises:
      UserError: the file that holds it is damaged.
    """
    workdir = expanded(workdir)
    try:
        return json.loads((workdir / "dataset.json").read_text()).get("fingerprint")
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        raise UserError(f"{workdir / 'dataset.json'} is damaged: delete it to go on") from None


def load_description(workdir):
    """(config, ClassTable) of a workdir.

    Raises:
      UserError: it holds none, or damaged ones.
    """
    workdir = expanded(workdir)
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} holds no trained model: make one with `mscaflax train`")
    config = with_defaults(read_config(workdir / "config.json"))
    return config, read_classes_file(workdir / "classes.json")


def saved_steps(workdir):
    """The steps of the checkpoints in a workdir (a Path), in their order."""
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []
