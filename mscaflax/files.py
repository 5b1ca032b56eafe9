"""Names of files, and writing them."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mscaflax.errors import UserError


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path in which ~ and ~NAME are the home folders that they stand for.

    Raises:
      UserError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        raise UserError(f"{path}: no home folder is known for {user}; write the path without it") from None


def writable_file(argument: str, name: str | os.PathLike[str]) -> Path:
    """The path of a file to write, checked before anything is computed for it.

    Raises:
      UserError: no such folder, or one that may not be written to; a folder, or a device, of that name.
    """
    path = expanded(name)
    if not path.parent.is_dir() or (path.exists() and not path.is_file()):
        raise UserError(f"{argument}={path} cannot be written: choose a file in a folder that exists")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{argument}={path} cannot be written: choose a folder that you may write to")
    return path


def new_folder(argument: str, name: str | os.PathLike[str]) -> Path:
    """The path of a folder to make, checked before anything is computed for it.

    Raises:
      UserError: it exists, or would lie in no folder, or in one that may not be written to.
    """
    path = expanded(name)
    if path.exists():
        raise UserError(f"{argument}={path} exists: choose a new folder")
    if not path.parent.is_dir():
        raise UserError(f"{argument}={path} cannot be made: {path.parent} is no folder")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{argument}={path} cannot be made: choose a folder that you may write to")
    return path


@contextlib.contextmanager
def folder_at_once(path: Path) -> Iterator[Path]:
    """A folder to be filled, which becomes `path` where the block ends; where it fails, nothing is left."""
    # The outer one, which is for its owner alone, goes; the inner one has the usual permissions.
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True
    ) as outer:
        inner = Path(outer, path.name)
        inner.mkdir()
        yield inner
        inner.rename(path)


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes a file so that no reader ever sees a part of it, nor anyone after the program was killed.

    Args:
      path: the file; its folder exists.
      data: bytes, or text, which is written as UTF-8.
    """
    path = Path(path)
    data = data.encode() if isinstance(data, str) else data
    # Not mkstemp, whose files are for their owner alone: to mend that needs the umask, which cannot be read
    # without being changed for all threads.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
