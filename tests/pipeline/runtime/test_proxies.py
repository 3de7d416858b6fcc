import os
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
import requests

from pipeline.runtime.proxies import go_past_proxies

PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
NOTHING = "http://127.0.0.1:9"  # where no proxy answers


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")  # so that what a test sets is put back
        monkeypatch.delenv(name)


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server on this machine."""

    class Hello(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached(name: str, host: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, NOTHING)
    go_past_proxies()
    url = f"http://{host}:{port}/"
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.status == 200
    assert requests.get(url, timeout=5).status_code == httpx.get(url, timeout=5).status_code == 200


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_what_was_excepted_stays_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", NOTHING)
    monkeypatch.setenv(name, "intern.example, localhost")
    go_past_proxies()
    go_past_proxies()
    expected = "intern.example,localhost,127.0.0.1,::1"
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == expected
    assert urllib.request.proxy_bypass("intern.example")
    assert not urllib.request.proxy_bypass("elsewhere.example")


def test_without_a_proxy_nothing_is_set() -> None:
    go_past_proxies()
    assert not {"no_proxy", "NO_PROXY"} & os.environ.keys()
