"""The trained models that ship with the package: packed folders, which stand wherever a workdir does."""

from pathlib import Path

from mscaflax.errors import UserError

DEFAULT = "scenes64"
_FOLDER = Path(__file__).parents[1] / "pretrained"


def shipped_models():
    """The names of the models in the package, sorted."""
    return sorted(folder.name for folder in _FOLDER.glob("*") if (folder / "config.json").is_file())


def pretrained_folder(name=DEFAULT):
    """The folder of a shipped model, usable as a workdir that cannot go on training.

    Raises:
      UserError: no model of this name ships with the package.
    """
    models = shipped_models()
    if name not in models:
        has = f"it has {', '.join(models)}" if models else "this installation has none"
        raise UserError(
            f"no model {name!r} ships with mscaflax: {has}; or give a workdir of `mscaflax train`"
        )
    return _FOLDER / name
