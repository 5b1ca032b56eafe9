"""What a checkpoint's files should hold: a list of SHA-256 digests that is committed with them.

Orbax restores truncated or bit-flipped files without a word, so every restore compares the digests first.
"""

import hashlib
import json
from pathlib import Path

from mscaflax.files import write_atomically

NAME = "sha256.json"
# Orbax writes into these after the list is made; they hold times, no weights.
_UNLISTED = {NAME, "_CHECKPOINT_METADATA"}


def write_manifest(folder):
    """Lists the files of a checkpoint's folder, whole and closed, with their digests."""
    folder = Path(folder)
    digests = {name: _digest(folder / name) for name in _files(folder)}
    write_atomically(folder / NAME, json.dumps({"files": digests}, indent=1))


def is_listed(folder):
    """Whether the checkpoint has a manifest."""
    return (Path(folder) / NAME).is_file()


def damage(folder, item=None):
    """What is wrong with the files of a checkpoint.

    Args:
      folder: of the checkpoint.
      item: look at the files below this subfolder alone; None for all.

    Returns:
      A short text that names the first bad file, the manifest if that is missing; None: all is as it was.
    """
    folder = Path(folder)
    try:
        digests = dict(json.loads((folder / NAME).read_text(encoding="utf-8"))["files"])
    except FileNotFoundError:
        return f"{NAME} is missing: its files cannot be checked"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{NAME} is damaged"
    for name in sorted(digests):
        if item is not None and not name.startswith(f"{item}/"):
            continue
        if not (folder / name).is_file():
            return f"{name} is missing"
        try:
            found = _digest(folder / name)
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        if found != digests[name]:
            return f"{name} was changed"
    return None


def _files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name not in _UNLISTED)
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
