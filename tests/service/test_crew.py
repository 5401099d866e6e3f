"""What a parent makes of how its workers end."""

import sys
import threading

import pytest

from cubeopt.service.crew import Crew, Post

# It is started as python -m cubeopt worker WORDS --hosted.
WORKER = """#!/bin/sh
echo "the storage is $CUBEOPT_STORAGE; told $4" >&2
case $4 in
  killed) kill -KILL $$ ;;
  asked) read word; echo "heard $word"; exit 0 ;;
  left) read word || echo "heard nothing"; exit 0 ;;
  *) exit $4 ;;
esac
"""


@pytest.fixture
def crew(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(WORKER)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    told = []

    def made(*ends, storage="somewhere"):
        posts = [Post(f"cpu{number}", (end,)) for number, end in enumerate(ends)]
        return Crew(posts, storage, lambda label, line: told.append((label, line)))

    made.told = told
    return made


@pytest.mark.parametrize(
    ("ends", "code"),
    [("00", 0), ("02", 2), ("33", 3), ("023", 1), (("0", "killed"), 1)],
)
def test_the_code_is_that_of_the_failures_if_they_agree(crew, ends, code):
    with crew(*ends) as working:
        assert working.work(threading.Event(), lambda: None) == code


def test_a_failure_is_said_with_its_process_and_what_it_said_itself_before_it(crew):
    with crew("3") as working:
        working.work(threading.Event(), lambda: None)
    own, ours = crew.told
    assert own == ("cpu0", "the storage is somewhere; told 3")
    assert ours[0] == "cubeopt"
    assert ours[1].startswith("worker cpu0 (pid ")
    assert ours[1].endswith(") ended with 3")


def test_all_are_asked_to_leave_by_a_line_and_then_nobody_says_that_others_go_on(crew):
    stop = threading.Event()
    stop.set()
    with crew("asked", "asked", "3") as working:
        assert working.work(stop, lambda: None) == 3
    heard = {label for label, line in crew.told if line == "heard leave"}
    assert heard == {"cpu0", "cpu1"}
    assert not any("go on" in line for _, line in crew.told)


def test_an_error_of_the_parents_lets_all_go_and_waits_for_them(crew):
    with pytest.raises(ZeroDivisionError), crew("left", "left"):
        raise ZeroDivisionError
    assert [line for _, line in crew.told].count("heard nothing") == 2
