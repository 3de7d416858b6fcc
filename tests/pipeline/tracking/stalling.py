"""A server that stops answering, and Ctrl-C when it has."""

import os
import signal
import socket
import time
from contextlib import suppress
from threading import Event, Thread

from tests.pipeline.mlflow_server import Server


class Stalling:
    """Stands before a server and passes everything on, until it keeps what arrives: uploads, or all."""

    def __init__(self, server: Server | None, only_uploads: bool = False) -> None:
        self.server = server
        self.only_uploads = only_uploads
        self.stalls = server is None
        self.has_stalled = Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            if self.server is None:
                self._pass_on(client, client)
                continue
            upstream = socket.create_connection(("127.0.0.1", self.server.port))
            Thread(target=self._pass_on, args=(client, upstream), daemon=True).start()
            Thread(target=self._pass_on, args=(upstream, client), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.stalls or (self.only_uploads and data.startswith(b"PUT")):
                    self.has_stalled.set()
                    self.kept = source, target  # they stay open
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def interrupt_when(event: Event) -> list[float]:
    """Ctrl-C, for this process alone, soon after the event; gives where its time is written."""
    times: list[float] = []

    def interrupt() -> None:
        assert event.wait(60)
        time.sleep(0.5)
        times.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=interrupt, daemon=True).start()
    return times
