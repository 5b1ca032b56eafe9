import signal
import subprocess
import sys
import threading
import time

import pytest

from mscaflax.training.loop import StopRequest


def saved_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def test_stop_request_restores_the_handlers():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop:
        assert stop.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_stop_request_works_in_a_thread():
    seen = []

    def run():
        with StopRequest() as stop:
            seen.append(stop.signal)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [None]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_program_saves_and_it_goes_on(number, status, tiny_arguments, tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "mscaflax", "train", f"--workdir={workdir}", *tiny_arguments]
    long = [*command, "--config.optimizer.decay_from=1.0", "--config.train.steps=10000"]
    long += ["--config.train.checkpoint_every=10000"]
    long += ["--config.train.sample_every=0", "--config.train.health_every=0", "--status_when_stopped=143"]
    with subprocess.Popen(long, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as program:
        said = ""
        try:
            for line in program.stderr:
                said += line
                if "step 3 of" in line:
                    break
            program.send_signal(number)
            started = time.monotonic()
            said += program.communicate(timeout=300)[1]
        finally:
            program.kill()
    assert program.returncode == status, said
    assert time.monotonic() - started < 30
    assert "Traceback" not in said
    (step,) = saved_steps(workdir)
    assert said.splitlines()[-1] == f"stopped and saved at step {step}; the same command goes on from there"
    resumed = subprocess.run(
        [*long, f"--config.train.steps={step + 1}"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming at step {step}" in resumed.stderr
    assert saved_steps(workdir) == [step, step + 1]
    assert not (workdir / "samples").exists()
