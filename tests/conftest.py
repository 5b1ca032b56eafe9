"""What all tests share: JAX on the CPU and strict, and the real photos where they are."""

import os
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Set as environment variables, before JAX is imported, so that programs started by tests are strict too.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"  # no silent broadcast between ranks
os.environ["JAX_CAPTURED_CONSTANTS_WARN_BYTES"] = "100000"  # weights are arguments, never constants

# A train step compiled by one test or program is loaded by the next. The folder lives as long as the
# run: a cache that outlived it could hold an entry cut short by a killed program.
_COMPILED = tempfile.TemporaryDirectory(prefix="mscaflax-compiled-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the photo datasets `facade`, `camvid` and `coco_stuff`; skips where it is absent."""
    folder = Path(os.environ.get("MSCAFLAX_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no photos at {folder}; MSCAFLAX_SHARED=FOLDER names another place")
    return folder
