"""Names of files, and writing them."""

import os
import secrets
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
