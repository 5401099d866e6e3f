"""How long-running commands are stopped."""

import signal
import subprocess
import sys
import threading

import pytest

from cubeopt.cli.options import stopping

_STUBBORN = """
import time
from cubeopt.cli.options import stopping
with stopping() as stop:
    print("ready", flush=True)
    stop.wait()
    print("told", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_leaves_at_once(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _STUBBORN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        for word in ("ready", "told"):
            assert process.stdout.readline() == f"{word}\n"
            process.send_signal(number)
        assert process.stderr.read() == "cubeopt: stopping (once more to leave at once)\n"
    assert process.returncode == 128 + number


def test_a_signal_sets_the_event_and_the_handlers_come_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping() as stop:
        assert isinstance(stop, threading.Event)
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
    assert signal.getsignal(signal.SIGTERM) is before
    assert "stopping" in capsys.readouterr().err
