"""How long-running commands are stopped."""

import signal
import subprocess
import sys
import threading

import pytest

from cubeopt.cli.options import gpu_numbers, stopping
from cubeopt.errors import InputError

_STUBBORN = """
import time
from cubeopt.cli.options import gpu_numbers, stopping
from cubeopt.errors import InputError
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


def test_gpus_are_numbers_with_commas_between() -> None:
    assert gpu_numbers("0") == [0]
    assert gpu_numbers("2,0,11") == [2, 0, 11]
    for text in ("", ",", "0,", "0 1", "0;1", "a", "-1", "1.0", "²"):
        with pytest.raises(InputError, match="--gpu takes the numbers"):
            gpu_numbers(text)
    with pytest.raises(InputError, match=r"^--gpu 1,2,1: GPU 1 stands there twice$"):
        gpu_numbers("1,2,1")


_AT_ONCE = _STUBBORN.replace("stopping()", "stopping(lambda: print('last', flush=True))")


def test_what_is_to_be_done_at_once_is_done_before_leaving() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _AT_ONCE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        for word in ("ready", "told"):
            assert process.stdout.readline() == f"{word}\n"
            process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "last\n"
    assert process.returncode == 128 + signal.SIGTERM
