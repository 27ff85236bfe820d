"""Reports at an address of this machine alone, written again for each request. Nothing else is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOOPBACK = "127.0.0.1"
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
Page = Callable[[], str]


def server(pages: Mapping[str, Page], port: int = 0) -> ThreadingHTTPServer:
    """A server of pages by their paths; port 0 takes a free one. Raises OSError where the port is taken."""
    made = ThreadingHTTPServer((LOOPBACK, port), handler(pages))
    made.daemon_threads = True
    return made


def address(made: ThreadingHTTPServer) -> str:
    """Where to look."""
    return f"http://{LOOPBACK}:{made.server_address[1]}/"


def handler(pages: Mapping[str, Page]) -> type[BaseHTTPRequestHandler]:
    """Answers GET and HEAD for these paths."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "sesurgery", ""

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, *_: object) -> None:
            """Do not log requests."""

        def _answer(self, body: bool) -> None:
            # DNS rebinding: a foreign page's host name may resolve to 127.0.0.1; its requests then name that host.
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host not in (LOOPBACK, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                text = page().encode()
            except Exception as error:  # whatever the report says of it, the server goes on
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=str(error))
                return
            self.send_response(HTTPStatus.OK)
            for name, value in {**HEADERS, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(text)

    return Handler
