"""A chat endpoint on this machine that scores whatever it is asked by chance."""

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_MOST_BYTES = 64 * 2**20


@contextmanager
def scoring_endpoint() -> Iterator[str]:
    """The base URL of an endpoint that answers while the block lasts, on localhost alone.

    A question always gets the same score, and different ones nearly always different ones.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answers one question."""
        length = int(self.headers.get("Content-Length", 0))
        question = self.rfile.read(min(length, _MOST_BYTES))
        said = f"By chance.\nScore: {zlib.crc32(question) % 101}"
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = json.dumps({"choices": [choice], "usage": {"total_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""
