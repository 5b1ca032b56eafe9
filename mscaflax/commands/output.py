"""Files that commands write to."""

import io
from pathlib import Path
from typing import Any

from mscaflax.errors import UserError
from mscaflax.files import expanded, writable_file


def output_path(argument: str, name: str, endings: tuple[str, ...] = (".png",)) -> Path:
    """The path of a picture to write, checked before anything is computed for it.

    Args:
      argument: the argument that gives it, for messages.
      name: what it gives.
      endings: in lower case; any of them will do.

    Raises:
      UserError: another ending, or as `writable_file`.
    """
    path = expanded(name)
    if path.suffix.lower() not in endings:
        why = ": a lossy format would change the picture" if endings == (".png",) else ""
        raise UserError(f"{argument}={path} must end in {' or '.join(endings)}{why}")
    return writable_file(argument, path)


def save_png(path: Path, picture: Any) -> None:
    """Writes uint8 [h, w, 3] as a PNG file: all of it, or nothing."""
    from PIL import Image

    from mscaflax.files import write_atomically

    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    write_atomically(path, content.getvalue())
