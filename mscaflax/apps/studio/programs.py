"""Compiled programs that outlast the studio's process."""

import os
import tempfile
from pathlib import Path

import jax


def keep_programs():
    """Has JAX keep what it compiles from now on in a folder of the user's, and take from there what is there.

    The folder is mscaflax/programs in XDG_CACHE_HOME, or else in ~/.cache. Nothing changes where JAX was told
    of a folder by JAX_COMPILATION_CACHE_DIR (empty: of none) or its config, or where it cannot be written.

    Returns:
      The folder, or None where nothing changed.
    """
    if jax.config.jax_compilation_cache_dir is not None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    try:
        folder = _user_caches() / "mscaflax" / "programs"
        # What lies there is run: it is nobody else's to write.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # the latter where there is no home
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # By default JAX keeps what took a second; a first picture takes many programs that took less.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def _user_caches():
    # By the XDG base directory specification a relative path is ignored.
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return given if given.is_absolute() else Path.home() / ".cache"
