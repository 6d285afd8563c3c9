"""The real server as a user starts it: the `speechd` command, on a free port of loopback."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

SPEECHD = Path(sys.executable).parent / "speechd"
READY_WITHIN_SECONDS = 180  # includes the conversion of the models on a fresh checkout
LISTENS = re.compile(r"listens on (http://\S+)")


def environment(**settings: object) -> dict[str, str]:
    """This environment without any setting of speechd, plus the given ones."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SPEECHD_")}
    return inherited | {f"SPEECHD_{key.upper()}": str(value) for key, value in settings.items()}


class ServerProcess:
    """A running server: where it listens, and what it has logged."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.log_file = folder / "server.log"
        self.home = folder / "home"
        self.home.mkdir()
        with self.log_file.open("wb") as stream:
            self.process = subprocess.Popen(
                [SPEECHD, "serve"],
                cwd=folder,
                env=environment(port=0, **settings) | {"HOME": str(self.home)},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        self.url = ""

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait_until_listening(self) -> None:
        self._wait(lambda: bool(LISTENS.search(self.log)))
        found = LISTENS.search(self.log)
        assert found is not None
        self.url = found[1]

    def wait_until_ready(self) -> None:
        self.wait_until_listening()
        self._wait(self._is_ready)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def _wait(self, condition) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not condition():
            assert self.process.poll() is None, f"the server ended:\n{self.log}"
            assert time.monotonic() < deadline, f"the server is not ready:\n{self.log}"
            time.sleep(0.1)


@contextmanager
def running_server(folder: Path, **settings: object) -> Iterator[ServerProcess]:
    """A ready server; it is ended by its process id."""
    server = ServerProcess(folder, **settings)
    try:
        server.wait_until_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(60)
