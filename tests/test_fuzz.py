"""Mistaken and hostile files and arguments: a sample; `python tests/fuzz.py` runs thousands."""

import functools
import importlib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mscaflax import Synthesizer
from mscaflax.apps.studio.server import build_app
from mscaflax.apps.studio.service import Studio
from mscaflax.training import model


@pytest.mark.slow
def test_no_input_brings_a_traceback_or_a_file_beside(tiny_run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    fuzz = importlib.import_module("fuzz").fuzz
    monkeypatch.setattr(model, "load_model", functools.cache(model.load_model))
    app = build_app(Studio(Synthesizer.from_workdir(tiny_run)), warm=False)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        outcomes = fuzz(150, 1, [f"--workdir={tiny_run}"], client, Path(tmp_path))
    assert outcomes.keys() == {"synthesize", "blend", "prepare", "studio", "picture"}
    # Some of it is right, or nothing would be tried beyond the reading of files.
    right = {kind: row.get(0, 0) + row.get(200, 0) for kind, row in outcomes.items()}
    assert all(right.values()), outcomes
