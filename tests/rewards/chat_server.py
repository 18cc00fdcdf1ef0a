"""A chat endpoint that does what it is told to, over a real socket."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Records what it is sent, then acts."""

    server: "ChatServer"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.asked.append(json.loads(body) if body.startswith(b"{") else None)
            self.server.headers.append(dict(self.headers))
            self.server.paths.append(self.path)
            act = self.server.acts[min(len(self.server.asked), len(self.server.acts)) - 1]
        act(self)

    do_GET = do_POST

    def say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class ChatServer(ThreadingHTTPServer):
    """Acts in turn, the last of them for ever."""

    daemon_threads = True

    def __init__(self, acts: tuple[Act, ...], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.acts = acts
        self.lock = threading.Lock()
        self.asked: list[dict] = []
        self.headers: list[dict] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: Any) -> None:
        pass


@contextmanager
def serving(*acts: Act) -> Iterator[ChatServer]:
    server = ChatServer(acts)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def chat(content: Any, finish_reason: Any = "stop", tokens: Any = 10) -> bytes:
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], "usage": {"total_tokens": tokens}}).encode()


def says(content: Any, **settings: Any) -> Act:
    return lambda handler: handler.say(200, chat(content, **settings))


def fails(status: int, body: bytes = b"no", **headers: str) -> Act:
    return lambda handler: handler.say(status, body, **headers)


def hangs_up(handler: Handler) -> None:
    handler.connection.close()


def sleeps(handler: Handler) -> None:
    time.sleep(3)


def drips(handler: Handler) -> None:
    """A byte now and then, so that no single wait is long."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(60):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def never_ends(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b"x" * (1 << 16))


def echoes_headers(handler: Handler) -> None:
    handler.say(401, f"your key {handler.headers['Authorization']} is wrong".encode())
