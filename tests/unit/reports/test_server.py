"""The server of reports: pages made at every look, on the loopback address, for nobody else."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import pytest

from sesurgery.reports import server


def broken() -> str:
    raise RuntimeError("no run")


@pytest.fixture
def port() -> Iterator[int]:
    looks: list[int] = []

    def page() -> str:
        looks.append(1)
        return f"look {len(looks)}"

    made = server.server({"/": page, "/broken": broken})
    assert made.server_address[0] == "127.0.0.1"
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    yield int(made.server_address[1])
    made.shutdown()
    thread.join()
    made.server_close()


def asked(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_page_is_made_anew_at_every_look(port: int) -> None:
    assert [asked(port, "/") for _ in range(2)] == [(200, "look 1"), (200, "look 2")]
    assert asked(port, "/?x", method="HEAD") == (200, "")


def test_nothing_else_is_served(port: int) -> None:
    assert asked(port, "/../etc/passwd")[0] == 404
    assert asked(port, "/", method="POST")[0] == 501
    assert asked(port, "/broken")[0] == 500
    assert asked(port, "/")[0] == 200


def test_a_request_for_another_host_is_refused(port: int) -> None:
    assert asked(port, "/", Host=f"evil.example:{port}")[0] == 403
    assert asked(port, "/", Host=f"localhost:{port}")[0] == 200
