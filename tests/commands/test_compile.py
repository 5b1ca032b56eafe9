"""`mscaflax compile`: arguments, the report, failures; slow: a real compilation by libtpu."""

import json
import resource
import subprocess
import sys
from importlib.util import find_spec

import jax
import pytest

from mscaflax import cli
from mscaflax.config import load_config
from mscaflax.training import aot
from mscaflax.training.experiment import build_experiment

TINY = ["compile", "--config=tiny", "--num_classes=5"]
SLICE = ["--topology=v5e:2x2", "--per_device_batch=2"]

REPORT = {
    "topology": "v5e:2x2",
    "devices": 4,
    "batch_size": 8,
    "accumulate": 1,
    "remat": False,
    "fsdp": 1,
    "modulation": "spade",
    "num_classes": 5,
    "memory": {
        "arguments": 1e9,
        "outputs": 0,
        "temporaries": 7e9,
        "program": 0,
        "total": 8e9,
        "capacity": 16e9,
        "share": 0.5,
    },
    "flops": 8.3e12,
    "bytes_moved": 85e9,
    "hbm_bytes": 42e9,
    "traffic_floor": 21e9,
    "traffic_ratio": 85 / 21,
    "hbm_ratio": 2.0,
    "compute_seconds": 0.042,
    "memory_seconds": 0.104,
    "images_per_second": 1234.0,
    "collectives": {"all-reduce": {"count": 7, "bytes": 340e6}},
    "written_bytes": {"bf16": 20e9, "f32": 3e9},
    "largest": [
        {
            "bytes": 268e6,
            "count": 3,
            "reads": 5,
            "padding": 2.0,
            "type": "f32[8,256,256,64]",
            "operation": "fusion",
            "place": "jit(step)/wide",
        }
    ],
    "lower_seconds": 20.0,
    "compile_seconds": 260.0,
    "versions": {"jax": "0.10.2"},
}


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """`compiler(script)`: a shell script stands in for the process that compiles; libtpu seems installed."""

    def install(script):
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))
        monkeypatch.setattr(aot, "find_spec", lambda name: object())

    return install


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([*TINY], "--topology"),
        ([*TINY, "--topology=v9:2x2"], "no chip 'v9'"),
        ([*TINY, "--topology=v5e:2"], "along 2 axes"),
        ([*TINY, "--topology=v5e:4x4"], "train.batch_size is 4; give a positive multiple of 32"),
        ([*TINY, "--topology=v5e:2x2", "--per_device_batch=3"], "odd"),
        ([*TINY, *SLICE, "--per_device_batch=0"], "0 is not above 0"),
        ([*TINY, *SLICE, "--config.model.num_regions=0"], "num_regions"),
        ([*TINY, *SLICE, "--output=nowhere/report.json"], "in a folder that exists"),
        ([*TINY, *SLICE, "--output=."], "cannot be written: choose a file"),
        (["compile", "--config=photos64", *SLICE, "--config.data.data_dir=nowhere"], "or give --num_classes"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, said, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err


def test_without_the_compiler(monkeypatch, capsys):
    monkeypatch.setattr(aot, "find_spec", lambda name: None)
    assert cli.main([*TINY, *SLICE]) == 2
    assert "pip install 'libtpu==0.0.42.*'" in capsys.readouterr().err


def test_a_compiler_that_aborts_is_told(compiler, tmp_path, capsys):
    compiler("echo 'F0000 1 converter.cc:9] Check failed: a == b' >&2\nkill -ABRT $$")
    assert cli.main([*TINY, *SLICE, f"--output={tmp_path}/report.json"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "SIGABRT" in err and "Check failed: a == b" in err and "try another --per_device_batch" in err
    assert not (tmp_path / "report.json").exists()


def test_what_does_not_fit_is_told(compiler, capsys):
    compiler("""printf '{"error": "RESOURCE_EXHAUSTED: Used 22.84G of 15.75G hbm."}' > "$3\"""")
    assert cli.main([*TINY, *SLICE]) == 1
    said = capsys.readouterr().err
    assert "it needs 22.84G of 15.75G memory; try a smaller --per_device_batch" in said
    assert "accumulate=2" in said and "remat=true" in said and "fsdp=N" in said


def test_the_request_holds_what_was_asked_for(compiler, tmp_path):
    compiler(f"cat > {tmp_path}/request.json; env > {tmp_path}/environment; echo Traceback >&2; exit 1")
    with pytest.raises(RuntimeError, match="Traceback"):
        cli.main([*TINY, *SLICE, "--config.model.num_regions=7", "--largest=9"])
    request = json.loads((tmp_path / "request.json").read_text())
    assert (request["topology"], request["batch_size"], request["num_classes"]) == ("v5e:2x2", 8, 5)
    assert request["largest"] == 9 and json.loads(request["config"])["model"]["num_regions"] == 7
    environment = (tmp_path / "environment").read_text().splitlines()
    # Neither another compilation nor a cloud's machinery is in the way.
    assert {"JAX_PLATFORMS=cpu", "TPU_SKIP_MDS_QUERY=1", "ALLOW_MULTIPLE_LIBTPU_LOAD=1"} <= set(environment)


@pytest.mark.parametrize("share, status", [(0.5, 0), (1.2, 1)])
def test_the_report(share, status, monkeypatch, tmp_path, capsys):
    report = REPORT | {"memory": REPORT["memory"] | {"share": share}}
    monkeypatch.setattr(aot, "compile_apart", lambda *args: report)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main([*TINY, *SLICE, "--largest=1", "--output=~/report.json"]) == status
    out, err = capsys.readouterr()
    rows = {line.split("  ")[1]: line for line in out.splitlines() if line.startswith("  ")}
    assert "8.000 GB" in rows["memory: total"] and f"{share:.0%} of 16.000 GB" in rows["memory: total"]
    assert "104.0 ms at 819 GB/s" in rows["bytes over HBM"] and "4.05 times" in rows["traffic floor"]
    assert "42.0 ms at 197 TFLOP/s" in rows["arithmetic"] and "1234" in rows["images per second"]
    assert "in 7" in rows["all-reduce"] and "3.000 GB" in rows["written as f32"]
    assert "f32[8,256,256,64] jit(step)/wide" in out
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert ("try a smaller --per_device_batch" in err) == (status == 1)
    assert "4 devices, 2 examples each, 5 classes" in out


def test_the_report_says_what_saves_memory(monkeypatch, capsys):
    monkeypatch.setattr(
        aot, "compile_apart", lambda *args: REPORT | {"accumulate": 2, "remat": True, "fsdp": 4}
    )
    assert cli.main([*TINY, *SLICE]) == 0
    said = capsys.readouterr().out
    assert "2 examples each in 2 parts, rematerialized, 4 devices share the state, 5 classes" in said


def test_the_report_as_json(monkeypatch, capsys):
    monkeypatch.setattr(aot, "compile_apart", lambda *args: REPORT)
    assert cli.main([*TINY, *SLICE, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == REPORT and "memory: total" in err


# Attention where columns are folded: at each scale it takes a sixth of the time to compile.
LESS = [
    "--config.model.attention_scales=(True,False,False,False,False)",
    "--config.discriminator.num_scales=1",
]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("libtpu") is None, reason="no libtpu: pip install -e '.[compile]'")
def test_tiny_compiles_for_a_tpu(tmp_path):
    arguments = [*TINY, *SLICE, *LESS, "--config.model.dtype=bfloat16", "--largest=5"]
    # As the config for TPUs has them.
    for setting in ("model.fold_columns", "model.convolutions", "train.tpu_options"):
        group, name = setting.split(".")
        arguments.append(f"--config.{setting}={load_config(['--config=coco_stuff256'])[group][name]}")
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    done = subprocess.run(
        [sys.executable, "-m", "mscaflax", *arguments, f"--output={tmp_path}/report.json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["devices"], report["batch_size"]) == (4, 8)
    assert 0 < report["memory"]["share"] < 0.1
    assert report["flops"] > 1e9 and 1 < report["traffic_ratio"] < 100
    # What the step reads and writes at least, and no more than XLA counts with the chip's fast memory.
    assert report["memory"]["arguments"] < report["hbm_bytes"] < report["bytes_moved"]
    # At least the gradients of both networks go around, in bfloat16 or wider.
    state, *_ = aot.abstract_arguments(build_experiment(load_config(["--config=tiny", *LESS]), 5), 8)
    parameters = jax.tree.leaves((state.generator, state.discriminator))
    assert report["collectives"]["all-reduce"]["bytes"] > 2 * sum(leaf.size for leaf in parameters)
    assert len(report["largest"]) == 5 and "bytes moved" in done.stdout
    # Of a processor; 86 s were seen, in 57 s by the clock with nothing beside it.
    assert sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before < 180
