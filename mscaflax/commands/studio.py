"""`mscaflax studio`: a local web page."""

import argparse
import errno
import os
import socket
import sys
import threading
import webbrowser
from typing import Any

from mscaflax.commands.argument_types import port
from mscaflax.errors import UserError

HELP = "a local web page: paint a label map, drop a photo, see the picture and what feeds it"
PORT = 7860


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--workdir", metavar="DIR", help="the folder of `mscaflax train` (default: the model that ships)"
    )
    parser.add_argument(
        "--port", type=port, default=PORT, metavar="N", help=f"0 picks a free one (default: {PORT})"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="default: 127.0.0.1, this machine alone; 0.0.0.0 lets others in, and no password is asked",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def run(args: argparse.Namespace) -> int:
    """Serves until it is interrupted.

    Raises:
      UserError: the extra `studio` is not installed, no model, or an address that cannot be had.
    """
    try:
        import python_multipart  # noqa: F401 (Starlette reads forms with it)
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UserError(f"{error.name} is missing: pip install -e '.[studio]' in the clone") from None

    # Before the model is loaded: who waits should not learn then that the port is taken.
    with _listen(args.host, args.port) as listening:
        from mscaflax.apps.studio.programs import keep_programs
        from mscaflax.apps.studio.server import THREAD_NAME, build_app
        from mscaflax.apps.studio.service import Studio
        from mscaflax.apps.synthesizer import Synthesizer

        studio = Studio(Synthesizer.from_workdir(args.workdir))
        keep_programs()
        app = build_app(studio, args.host)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
        )
        url = _url(args.host, listening.getsockname()[1])
        try:
            _server(uvicorn, config, url, args.open).run(sockets=[listening])
        except KeyboardInterrupt:
            print()
    if any(thread.name == THREAD_NAME for thread in threading.enumerate()):
        # A compilation cannot be interrupted, and the interpreter's usual end would abort in the midst of it.
        sys.stdout.flush()
        os._exit(0)
    return 0


def _server(uvicorn: Any, config: Any, url: str, opened: bool) -> Any:
    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            print(f"The studio is at {url} (Ctrl-C ends it)", flush=True)
            if opened:
                webbrowser.open(url)

    return Server(config)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):  # the latter for a name such as 127.0.0..1
        raise UserError(f"--host={host} is no address of this machine: leave it out for 127.0.0.1") from None
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is taken: give another --port (0 finds a free one)") from None
        if error.errno == errno.EACCES:
            raise UserError(f"port {port} is not for everyone: give a --port above 1023") from None
        raise UserError(f"--host={host} cannot be listened on ({error.strerror}): try 127.0.0.1") from None
    return listening


def _url(host: str, port: int) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"
