"""mscaflax: an image with the layout of a label map and the style of an example photo.

What `_LAZY` names is loaded on first use, so `import mscaflax` costs neither JAX nor TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mscaflax.errors import UserError

if TYPE_CHECKING:
    from mscaflax.apps.exported import load_exported
    from mscaflax.apps.synthesizer import Synthesizer

__version__ = "0.1.0"
__all__ = ["Synthesizer", "UserError", "__version__", "load_exported"]

_LAZY = {"Synthesizer": "mscaflax.apps.synthesizer", "load_exported": "mscaflax.apps.exported"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
