"""What stands between the network and the application: who may ask, how much, and what a browser may do."""

import ipaddress
import json
import socket
from urllib.parse import urlsplit

MAX_BODY = 20 * 2**20

_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)


class TooLarge(Exception):
    """A body beyond MAX_BODY."""


def _place(origin):
    """Host and port of an Origin header; None of one that has none or cannot be read."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


class Guard:
    """An ASGI application around another.

    It answers
      - 403 unless the Host header is one under which the server is meant to be reached: a page elsewhere
        whose name was turned to this machine (DNS rebinding) carries its own name there;
      - 403 to what a page of another origin sends, by its Origin header;
      - 413 to bodies above MAX_BODY, whether they declare their length or not;
    and adds headers that keep the page to its own origin.
    """

    def __init__(self, app, host):
        """`host`: the address that the server listens on."""
        self.app, self.host = app, host

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin")
        if not host_allowed(host, self.host):
            return await _refuse(send, 403, "this address is not served here: open the one that was printed")
        if origin is not None and _place(origin.decode("latin-1")) != host:
            return await _refuse(send, 403, "the request comes from another page")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return await _refuse(send, 413, TOO_LARGE)
        received, started = 0, False

        async def counted():
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise TooLarge
            return message

        async def with_headers(message):
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = message | {"headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        try:
            await self.app(scope, counted, with_headers)
        except TooLarge:
            if not started:
                await _refuse(send, 413, TOO_LARGE)
        except Exception:
            # Starlette raises again what it has answered, and what the application has logged.
            if not started:
                raise


TOO_LARGE = f"that is more than {MAX_BODY // 2**20} MB: choose a smaller file"


def host_allowed(header, host):
    """Whether a Host header names this server.

    Args:
      header: "name", "name:port" or "[v6 address]:port".
      host: the address that the server listens on. A loopback address is reached by loopback names alone,
        any other by itself, by numeric addresses and by the machine's name as well.
    """
    try:
        name = urlsplit(f"//{header}").hostname
    except ValueError:
        return False
    if not name:
        return False
    address = _address(name)
    if name == "localhost" or (address is not None and address.is_loopback) or name == host.lower():
        return True
    listening = _address(host)
    if host == "localhost" or (listening is not None and listening.is_loopback):
        return False
    machine = socket.gethostname().lower()
    return address is not None or name in (machine, f"{machine}.local")


def _address(name):
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


async def _refuse(send, status, message):
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
