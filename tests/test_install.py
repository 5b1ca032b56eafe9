"""What a wheel holds: everything that an editable install finds in the clone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mscaflax.config import shipped_configs

ROOT = Path(__file__).parents[1]
PROGRAM = """
import json, mscaflax
from mscaflax.config import load_config, shipped_configs
print(json.dumps([mscaflax.__file__, *(str(f) for f in shipped_configs().values())]))
load_config(["--config=tiny", "--config.train.steps=3"])
"""


@pytest.mark.slow
def test_wheel_is_whole(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("mscaflax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # --target installs what a wheel of the source holds, and nothing else.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, source]
    subprocess.run(pip, check=True, timeout=300)

    files = {file.relative_to(ROOT) for file in (ROOT / "mscaflax").rglob("*") if file.is_file()}
    wanted = {file for file in files if "__pycache__" not in file.parts}
    assert {file for file in wanted if not (site / file).is_file()} == set()

    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    places = [Path(place) for place in json.loads(done.stdout)]
    assert all(place.is_relative_to(site) for place in places)
    assert {place.stem for place in places[1:]} == shipped_configs().keys()
