import importlib
import sys
from pathlib import Path

import pytest

FOLDER = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture(scope="session")
def benchmark_script():
    """Imports a script of the folder benchmarks by its name; the scripts import each other."""

    def load(name):
        sys.path.insert(0, FOLDER)
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(FOLDER)

    return load
