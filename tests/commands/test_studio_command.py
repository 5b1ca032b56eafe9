"""`mscaflax studio`: what it says when it cannot start, and that it starts and ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from mscaflax import cli


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (["--port=70000"], "70000 is outside 0..65535"),
        (["--port=x"], "invalid port value"),
        (["--host=no.such.address.invalid", "--port=0"], "is no address of this machine"),
        (["--host=127.0.0..1", "--port=0"], "is no address of this machine"),
        (["--host=192.0.2.1", "--port=0"], "cannot be listened on"),
        (["--port=0"], "holds no trained model"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(how, message, tmp_path, capsys):
    assert cli.main(["studio", f"--workdir={tmp_path}", *how]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err, err


def test_a_taken_port(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["studio", f"--workdir={tmp_path}", f"--port={port}"]) == 2
    assert capsys.readouterr().err == (
        f"mscaflax: error: port {port} is taken: give another --port (0 finds a free one)\n"
    )


@pytest.mark.slow
def test_it_says_where_it_is_and_ends(tiny_run, tmp_path):
    command = [sys.executable, "-m", "mscaflax", "studio", f"--workdir={tiny_run}", "--port=0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as studio:
        try:
            line = studio.stdout.readline().decode()
            url = re.fullmatch(r"The studio is at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)[1]
            with urllib.request.urlopen(url, timeout=60) as page:
                assert b"<title>mscaflax studio</title>" in page.read()
            studio.send_signal(signal.SIGINT)
            out, err = studio.communicate(timeout=120)
        finally:
            studio.kill()
    assert (studio.returncode, out.strip(), err) == (0, b"", b"")
