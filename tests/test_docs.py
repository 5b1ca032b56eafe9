"""What the docs show runs."""

import argparse
import importlib
import re
import resource
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import pytest
from documented import commands_of

from mscaflax import cli
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
        ("mscaflax.nets.convolution:EdgeConv", "is no subclass"),
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


@pytest.mark.parametrize(
    "page",
    [
        "README.md", "docs/own_photos.md", "docs/extending.md", "docs/deploy.md", "docs/scaling.md",
        "docs/results.md", "mscaflax/pretrained/scenes64/README.md",
    ],
)  # fmt: skip
def test_the_commands_of_a_page_are_taken(page):
    commands = commands_of(page)
    assert commands
    for name, arguments in commands:
        # A number that the text says to choose.
        config, _ = parsed(name, [re.sub("=RATE$", "=1e-4", argument) for argument in arguments])
        if cli.COMMANDS[name].takes_config:
            load_config(config)


def test_the_readme_names_files_that_it_draws(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(DOCS)
    pictures = importlib.import_module("make_pictures")
    pictures.write_files(tmp_path)
    taken, seen = set(), set()
    for name, arguments in commands_of("README.md"):
        _, values = parsed(name, arguments)
        # With --workdir the files are the reader's own.
        if name in ("synthesize", "blend", "extrapolate", "edit") and values["workdir"] is None:
            seen.add(name)
            inputs = [value for key, value in values.items() if key not in ("output", "attention")]
            files = [file for value in inputs for file in (value if isinstance(value, list) else [value])]
            taken |= {file for file in files if str(file).endswith(".png")}
    assert seen == {"synthesize", "blend", "extrapolate", "edit"}
    assert taken == {path.name for path in tmp_path.iterdir()}
    larger, part, edited, label = (
        check_label(tmp_path / f"{name}.png", name, pictures.CLASSES)
        for name in ("larger", "part_label", "edited", "photo_label")
    )
    assert find_place(part, larger) == (16, 32)
    assert 0.02 < (edited != label).mean() < 0.2


def parsed(name, arguments):
    """(config items, {key: value}) of a command's arguments, by the command's own parser."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    importlib.import_module(cli.COMMANDS[name].module).add_arguments(parser)
    config, rest = cli.split_config(arguments) if cli.COMMANDS[name].takes_config else ([], arguments)
    return config, vars(parser.parse_args(rest))


@pytest.mark.slow
def test_the_tour_runs_from_start_to_end(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    tour = importlib.import_module("make_tour")
    found = nbformat.read(DOCS / "tour.ipynb", 4)
    written = tour.notebook()
    assert [cell.source for cell in found.cells] == [cell.source for cell in written.cells]
    before = seconds_of_children()
    ran = tour.executed()
    # It promises less than two minutes. Of the processors, that is: others may be at work beside the test.
    assert 5 < seconds_of_children() - before < 240
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) == 11
    said = [output["text"] for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert len(said) == 1 and "the segmenter guesses the label map" in said[0]


def seconds_of_children():
    """What ended child processes took of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
