"""A message is brought once, signed, in bounded time, to nobody else."""

import hashlib
import hmac
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cubeopt.service import courier
from cubeopt.service.courier import Courier, UndeliveredError
from cubeopt.settings import Receiver

from ..receiving import receiving

SECRET = b"a secret of both"


def test_the_signature_is_the_hmac_of_time_dot_body() -> None:
    # By hand: printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
    digest = hmac.new(b"secret", b"1700000000.{}", hashlib.sha256).hexdigest()
    assert courier.signature(b"secret", 1700000000, b"{}") == f"t=1700000000,v1={digest}"
    assert digest == "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"


def test_a_message_comes_with_its_id_and_a_signature() -> None:
    with receiving() as receiver:
        Courier(Receiver(receiver.url, SECRET), clock=lambda: 1700000000.9).post("e-1", '{"a": 1}')
        Courier(Receiver(receiver.url, None)).post("e-2", "{}")
    first, second = receiver.received
    assert (first.path, first.content) == ("/hook", b'{"a": 1}')
    assert first.headers["cubeopt-event"] == "e-1"
    assert first.headers["content-type"] == "application/json"
    signed = courier.signature(SECRET, 1700000000, b'{"a": 1}')
    assert first.headers["cubeopt-signature"] == signed
    assert "cubeopt-signature" not in second.headers


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_any_answer_but_a_2xx_is_no_delivery(status: int) -> None:
    with receiving() as receiver:
        receiver.status = status
        with pytest.raises(UndeliveredError, match=f"^http://127.0.0.1:[0-9]+ answered {status}$"):
            Courier(Receiver(receiver.url, None)).post("e", "{}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with receiving() as elsewhere, receiving() as receiver:
        receiver.status, receiver.location = status, elsewhere.url
        with pytest.raises(UndeliveredError, match=f"{status}; redirects are not followed"):
            Courier(Receiver(receiver.url, None)).post("e", "{}")
    assert len(receiver.received) == 1
    assert elsewhere.received == []


def test_nobody_there_is_said_without_the_path_of_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UndeliveredError) as raised:
        Courier(Receiver(f"http://127.0.0.1:{port}/T0/s3cret?token=s3cret", None)).post("e", "{}")
    assert str(raised.value) == f"http://127.0.0.1:{port} does not answer: Connection refused"


@pytest.mark.parametrize("url", ["http://no..name/", "http://127.0.0.1:1/", "https://127.0.0.1:1/"])
def test_whatever_is_wrong_with_a_line_is_no_delivery(url: str) -> None:
    with pytest.raises(UndeliveredError, match="does not answer: "):
        Courier(Receiver(url, None)).post("e", "{}")


def test_one_who_answers_byte_by_byte_is_left() -> None:
    over = threading.Event()

    def drip(server: Any) -> None:
        line, _ = server.accept()
        with line:
            while not over.wait(0.05):
                try:
                    line.sendall(b"H")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        begun = time.monotonic()
        receiver = Receiver(f"http://127.0.0.1:{server.getsockname()[1]}/", None)
        with pytest.raises(UndeliveredError, match="does not answer"):
            Courier(receiver).post("e", "{}", timeout=0.5)
        assert time.monotonic() - begun < 30  # and not for ever
        over.set()
        thread.join()


def test_an_address_is_never_in_a_repr() -> None:
    assert "s3cret" not in repr(Receiver("https://hooks.example/s3cret", b"s3cret"))
    assert Receiver("https://hooks.example:8443/s3cret", None).shown == "https://hooks.example:8443"


def test_the_check_in_the_docs_takes_what_is_ours_and_new() -> None:
    told = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    (code,) = [each for each in re.findall(r"```python\n(.*?)```", told, re.S) if "hmac" in each]
    given: dict[str, Any] = {}
    exec(code, given)
    now, body = int(time.time()), b'{"a": 1}'
    assert given["genuine"](courier.signature(SECRET, now, body), body, SECRET)
    assert not given["genuine"](courier.signature(SECRET, now - 301, body), body, SECRET)
    assert not given["genuine"](courier.signature(SECRET, now, body + b" "), body, SECRET)
    assert not given["genuine"](courier.signature(b"another", now, body), body, SECRET)
