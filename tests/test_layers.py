"""The shape of the repository: who imports whom, what stays light, what a file may not hold."""

import ast
import re
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mscaflax"
MAX_LINES = 350

# Imports go downward: a module imports from its own layer and from those above it in this list.
LAYERS = ("errors", "files", "config", "data", "nets", "training", "evaluation", "apps", "commands", "cli")

FOLDERS = ("mscaflax", "configs", "tests", "benchmarks", "docs", "launch", ".github", ".ci")
TEXT = ("", ".py", ".sh", ".sbatch", ".md", ".toml", ".json", ".yml", ".yaml", ".ipynb")
SOURCES = [
    file
    for place in (*(ROOT.joinpath(folder).rglob("*") for folder in FOLDERS), ROOT.iterdir())
    for file in sorted(place)
    if file.is_file() and file.suffix in TEXT
]


def imported(file):
    """The modules of this package that `file` imports, anywhere in it, relative imports included."""
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(filter(None, (base, node.module)))
            # `from mscaflax import config` imports mscaflax.config.
            yield from (f"{name}.{alias.name}" for alias in node.names) if name == "mscaflax" else [name]


def layer(module):
    """The place in LAYERS of `mscaflax.LAYER...`; None for other packages, configs and `mscaflax` itself."""
    parts = module.split(".")
    return LAYERS.index(parts[1]) if parts[0] == "mscaflax" and parts[1:2] and parts[1] in LAYERS else None


def test_every_module_has_a_layer():
    top = {file.stem for file in PACKAGE.iterdir() if file.suffix == ".py" or (file / "__init__.py").exists()}
    assert top - {"__init__", "__main__"} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_imports_go_downward(name):
    files = [PACKAGE / f"{name}.py"] if (PACKAGE / f"{name}.py").exists() else (PACKAGE / name).rglob("*.py")
    upward = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files
        for module in imported(file)
        if (layer(module) or 0) > LAYERS.index(name)
    ]
    assert upward == []


def test_files_are_short():
    lengths = {
        file.relative_to(ROOT): len(file.read_text(encoding="utf-8").splitlines())
        for file in SOURCES
        if file.suffix in (".py", ".sh", "")
    }
    assert {file: n for file, n in lengths.items() if n > MAX_LINES} == {}


def test_nothing_of_one_machine():
    # Absolute paths and package registries, written so that this file does not match itself.
    places = re.compile(r"(?<![\w.~$}])/(?:work|root|home|Users)/|[.]pythonhosted[.]|p[y]pi[.]org|npm[j]s[.]")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in SOURCES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if places.search(line)
    ]
    assert found == []


def modules_of(package):
    return [f"{package}.{module.name}" for module in iter_modules(import_module(package).__path__)]


def loaded_by(modules, watched):
    """Which of the packages `watched` are there after a new Python has imported `modules`."""
    program = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
    program += f"print(*sorted({set(watched)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_tensorflow_serves_data_only():
    modules = ["mscaflax", "mscaflax.data.images", "mscaflax.data.classes", "mscaflax.data.scenes"]
    modules += [name for layer in ("nets", "evaluation", "apps") for name in modules_of(f"mscaflax.{layer}")]
    assert loaded_by(modules, ["tensorflow", "tensorflow_datasets"]) == []


def test_command_line_starts_light():
    heavy = ["jax", "flax", "tensorflow", "tensorflow_datasets", "clu", "scipy", "orbax"]
    assert loaded_by(["mscaflax", "mscaflax.cli", *modules_of("mscaflax.commands")], heavy) == []


def test_watching_imports_can_fail():
    assert loaded_by(["jax"], ["jax", "tensorflow"]) == ["jax"]


def test_tests_run_strictly():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones(3) + jnp.ones((2, 3))
    constant = np.ones(50_000, np.float32)
    with pytest.raises(UserWarning, match="constants were captured"):
        jax.jit(lambda x: x + constant)(np.ones(50_000, np.float32))
    with pytest.raises(DeprecationWarning):
        warnings.warn_explicit("old", DeprecationWarning, "x.py", 1, module="mscaflax.nets.vgg")
