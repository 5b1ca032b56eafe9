"""What the docs show runs."""

import argparse
import importlib
import re
import shlex
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import pytest

from mscaflax.apps.compose import find_place
from mscaflax.apps.inputs import check_label
from mscaflax.config import load_config
from mscaflax.errors import UserError
from mscaflax.nets.alignments import AlignmentInputs, find_alignment
from mscaflax.training.experiment import build_experiment
from mscaflax.training.state import init_state, neutral_statistics

DOCS = Path(__file__).parents[1] / "docs"
NAME = "my_alignment:GridAligner"


@pytest.fixture
def my_alignment(tmp_path, monkeypatch):
    """The module that docs/extending.md shows, importable."""
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "extending.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "my_alignment.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_alignment", None)


def test_an_alignment_of_ones_own(my_alignment):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)
    label = jnp.zeros((1, 16, 24, 2))
    maps = jnp.zeros((1, 32, 32), jnp.int32)
    inputs = AlignmentInputs((image,), (jnp.zeros((1, 32, 32, 2)),), (label,), maps, maps, (None,), (None,))
    module = find_alignment(NAME)(1, 16, (3,), (2,), scales=(True,))
    (alignments, _), params = module.init_with_output(jax.random.key(0), inputs)
    assert alignments[0].features.shape == (1, 16, 24, 3)
    # What changes at the right of the exemplar changes the right of the target alone.
    changed = inputs.replace(images=(np.where(np.arange(32)[:, None] > 26, image + 5, image),))
    other = module.apply(params, changed)[0][0].features
    moved = np.abs(other - alignments[0].features).max(axis=(0, 1, 3))
    assert moved[:9].max() < 1e-6 < 0.01 < moved[-1]

    arguments = ["--config=tiny", f"--config.model.alignment={NAME}"]
    experiment = build_experiment(load_config([*arguments, "--config.model.modulation=spade"]), 3)
    state = jax.eval_shape(lambda: init_state(experiment, neutral_statistics()))
    assert "scale0_hidden" in state.generator["aligner"]
    with pytest.raises(UserError, match="has no regions"):
        build_experiment(load_config([*arguments, "--config.model.modulation=decoupled"]), 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mscaa", "choose one of msca, gap"),
        ("no_such_module:Thing", "cannot be imported"),
        ("mscaflax.nets.alignments:Missing", "cannot be imported"),
        (":", "cannot be imported"),
        ("mscaflax.nets.alignments:flax", "is no subclass"),
        ("mscaflax.nets.layers:EdgeConv", "is no subclass"),
    ],
)
def test_an_alignment_that_is_none(name, message):
    with pytest.raises(UserError, match=message):
        find_alignment(name)


def test_every_link_between_the_docs_leads_somewhere():
    pages = [*DOCS.glob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CHANGELOG.md"]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_names_files_that_it_draws(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(DOCS)
    pictures = importlib.import_module("make_pictures")
    pictures.write_files(tmp_path)
    taken, commands = set(), readme_commands()
    assert {name for name, _ in commands} == {"synthesize", "blend", "extrapolate", "edit"}
    for name, arguments in commands:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"mscaflax.commands.{name}").add_arguments(parser)
        values = vars(parser.parse_args(arguments))
        inputs = [value for key, value in values.items() if key not in ("output", "attention")]
        files = [file for value in inputs for file in (value if isinstance(value, list) else [value])]
        taken |= {file for file in files if str(file).endswith(".png")}
    assert taken == {path.name for path in tmp_path.iterdir()}
    larger, part, edited, label = (
        check_label(tmp_path / f"{name}.png", name, pictures.CLASSES)
        for name in ("larger", "part_label", "edited", "photo_label")
    )
    assert find_place(part, larger) == (16, 32)
    assert 0.02 < (edited != label).mean() < 0.2


def readme_commands():
    """(name, arguments) of the README's commands that take the shipped model and the files of the page."""
    page = (DOCS.parent / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = re.compile("mscaflax (synthesize|blend|extrapolate|edit) (?!.*--workdir)(.*)")
    matches = [match for match in map(found.match, lines) if match]
    return [(match[1], shlex.split(match[2], comments=True)) for match in matches]


@pytest.mark.slow
def test_the_tour_runs_from_start_to_end(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    tour = importlib.import_module("make_tour")
    found = nbformat.read(DOCS / "tour.ipynb", 4)
    written = tour.notebook()
    assert [cell.source for cell in found.cells] == [cell.source for cell in written.cells]
    ran = tour.executed()
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) == 8
    assert not [output for cell in code for output in cell.outputs if output.get("name") == "stderr"]
