"""mscaflax: an image with the layout of a label map and the style of an example photo.

`Synthesizer` is loaded on first use, so `import mscaflax` costs neither JAX nor TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mscaflax.errors import UserError

if TYPE_CHECKING:
    from mscaflax.apps.synthesizer import Synthesizer

__version__ = "0.1.0"
__all__ = ["Synthesizer", "UserError", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Synthesizer":
        from mscaflax.apps.synthesizer import Synthesizer

        return Synthesizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "Synthesizer"])
