"""One side of a comparison in a process of its own, which works when it is asked to, and waits while the other does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

NAME = "TXLPLAN_BENCHMARK_SIDE"
"""Environment variable that tells a process which side it is."""


class Side:
    """A process that answers each line `step` once a unit of work is done, and `peak` with its peak memory in bytes."""

    def __init__(self, name: str, command: Sequence[str], *, side: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env={**os.environ, NAME: side}
        )

    def __enter__(self) -> Side:
        self._ask("step")
        self._ask("step")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def step(self) -> None:
        """One unit of work."""
        self._ask("step")

    def peak_bytes(self) -> int:
        """Of the process until now."""
        return int(self._ask("peak"))

    def _ask(self, what: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise SystemExit(f"{self.name} ended with code {self._process.wait()}: see above")
        return answer
