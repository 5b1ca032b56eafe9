"""Trains with several processes on this machine; on CPUs, a rehearsal of what hosts of a pod do.

    python launch/local.py N train --workdir=DIR --config=... --cpu_devices=K     # N processes of K devices

Ctrl-C and SIGTERM reach all of them: they save and stop after the same step. Where one fails, the others find
out and end, too; the exit status is that of the first one that failed.
"""

import signal
import socket
import subprocess
import sys
import time

# After one has failed: longer than the others need to find out, see mscaflax/training/processes.py.
PATIENCE_SECONDS = 90


def free_port():
    """A port of this machine that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def commands(count, arguments):
    """The command of each process."""
    address = f"--coordinator_address=127.0.0.1:{free_port()}"
    line = [sys.executable, "-m", "mscaflax", *arguments, address, f"--num_processes={count}"]
    return [[*line, f"--process_id={index}"] for index in range(count)]


def run(count, arguments):
    """Starts the processes and waits for them; returns the exit status."""
    children = []

    def forward(number, frame):
        del frame
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    try:
        for line in commands(count, arguments):
            # In a session of their own: the terminal's Ctrl-C reaches them through this program alone, once.
            children.append(subprocess.Popen(line, start_new_session=True))
    except BaseException:
        forward(signal.SIGKILL, None)
        raise
    status, deadline = 0, None
    while any(child.poll() is None for child in children):
        time.sleep(0.1)
        for index, child in enumerate(children):
            if child.poll() and not status:
                status, deadline = child.returncode, time.monotonic() + PATIENCE_SECONDS
                print(f"process {index} ended with status {status}; all have to end", file=sys.stderr)
        if deadline and time.monotonic() > deadline:
            forward(signal.SIGKILL, None)
    status = status or next((child.returncode for child in children if child.returncode), 0)
    # As a shell tells the death by a signal.
    return 128 - status if status < 0 else status


def main():
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal() or sys.argv[1] == "0":
        sys.exit(f"usage: python {sys.argv[0]} N train ARGUMENTS")
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    main()
