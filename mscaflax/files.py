"""Writing files."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes a file so that no reader and no crash ever sees a part of it.

    Args:
      path: the file; its folder exists.
      data: bytes, or text, which is written as UTF-8.
    """
    path = Path(path)
    data = data.encode() if isinstance(data, str) else data
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files for their owner alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
