"""One HTTP exchange within bounds: of time, of size, and with nobody but whom was asked."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from unified_rl.core.errors import ConfigError

_CHUNK = 1 << 16


class ExchangeError(OSError):
    """No whole reply; the message is one line without anything that was sent."""


class ExchangeTimeoutError(ExchangeError):
    """The exchange took longer than it may."""


class ReplySizeError(ExchangeError):
    """The body has more bytes than it may."""


class Reply(NamedTuple):
    """What a server said.

    Attributes:
        status: as HTTP numbers them; a redirect is an answer like others and never followed.
        headers: by lower-case name, the last of each.
        body: as it came.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Address(NamedTuple):
    """Where a server is.

    Attributes:
        secure: whether it is spoken to over TLS.
        host: name or IP address.
        port: in [1, 65535].
        path: of the URL, without a slash at its end.
    """

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str, setting: str) -> Self:
        """Reads a URL.

        Args:
            url: "http://host:port/path" or "https://...".
            setting: what it was given as, for messages.

        Raises:
            ConfigError: another scheme, or a URL that holds more than scheme, host, port and path.
        """
        if not (url.isascii() and url.isprintable() and " " not in url):
            raise ConfigError(f"{setting} holds blanks or characters that no URL has; check it")
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
            (host or "").encode("idna")  # as a connection will
        except ValueError as error:
            raise ConfigError(f"{setting}={url} is no URL ({error})") from error
        if parts.username is not None or parts.password is not None:
            raise ConfigError(f"{setting} holds a name or password; keys come from the environment")
        if parts.scheme not in ("http", "https"):
            raise ConfigError(f"{setting}={url} must begin with http:// or https://")
        if not host or port == 0 or parts.query or parts.fragment:
            raise ConfigError(f"{setting}={url} must be scheme://host:port/path and nothing else")
        secure = parts.scheme == "https"
        return cls(secure, host, port or (443 if secure else 80), parts.path.rstrip("/"))

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine by a name that is always so."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def exchange(
    address: Address,
    method: str,
    path: str,
    timeout_s: float,
    most_bytes: int,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Sends one request over a connection of its own, and reads the reply.

    Proxies of the environment are not used, and redirects are not followed, so that what is sent
    goes to the given host alone.

    Args:
        address: of the server.
        method: such as "POST".
        path: behind that of the address, with a slash at its start.
        timeout_s: for the whole exchange, however steadily a server drips; while connecting, for
            each of the host's addresses.
        most_bytes: of the reply's body; no more is ever held.
        body: what to send.
        headers: besides those that HTTP needs; values are checked by who gives them.

    Raises:
        ExchangeTimeoutError: the time was not enough.
        ReplySizeError: the body was larger.
        ExchangeError: no connection, a hang-up, or what came back is no HTTP.
    """
    connection: http.client.HTTPConnection
    if address.secure:
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            address.host, address.port, timeout=timeout_s, context=context
        )
    else:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
    cut = _Cut(timeout_s)
    try:
        with cut:
            connection.connect()
            cut.watch(connection.sock)
            connection.request(method, address.path + path, body, dict(headers or {}))
            response = connection.getresponse()
            content = _bounded(response, most_bytes, cut)
    except (ReplySizeError, ExchangeTimeoutError):
        raise
    except (OSError, http.client.HTTPException) as error:
        if cut.is_due or isinstance(error, TimeoutError):
            raise ExchangeTimeoutError(f"no whole reply within {timeout_s:g} s") from None
        # the text of an HTTPException is the server's
        reason = error.strerror if isinstance(error, OSError) else None
        raise ExchangeError(f"{type(error).__name__}{f': {reason}' if reason else ''}") from None
    finally:
        connection.close()
    return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, content)


def _bounded(response: http.client.HTTPResponse, most_bytes: int, cut: "_Cut") -> bytes:
    parts: list[bytes] = []
    left = most_bytes
    while part := response.read(min(_CHUNK, left + 1)):
        left -= len(part)
        if left < 0:
            raise ReplySizeError(f"the reply has more than {most_bytes} bytes")
        parts.append(part)
        cut.check()
    cut.check()  # a body without a stated length ends where the connection does
    if response.length:  # `read` with a size says nothing of a body that ends early
        raise ExchangeError("the reply ends in its middle")
    return b"".join(parts)


class _Cut:
    """Cuts a connection when its time is up, which wakes whoever waits for it.

    A socket's own timeout begins anew with every byte.
    """

    def __init__(self, timeout_s: float) -> None:
        self._socket: socket.socket | None = None
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._timer = threading.Timer(timeout_s, self._shut)
        self._timer.daemon = True

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._deadline

    def check(self) -> None:
        if self.is_due:
            raise ExchangeTimeoutError(f"no whole reply within {self._timeout_s:g} s")

    def watch(self, opened: socket.socket) -> None:
        self._socket = opened  # the connection itself forgets it before the body is read
        self.check()

    def _shut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
