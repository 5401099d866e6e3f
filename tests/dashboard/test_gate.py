"""Who is let in, what may be written, and what every answer says to browsers."""

import http.client
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page
from sqlalchemy import Engine
from starlette.routing import Route

from cubeopt.dashboard import app, door
from cubeopt.errors import ConfigError, InputError

from .conftest import Served, Viewer, serving

TOKEN = "correct-horse-battery-staple"
NOTE = "/api/studies/1/note"


@pytest.fixture(scope="module")
def guarded(module_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(module_engine, tmp_path_factory.mktemp("guarded"), TOKEN) as served:
        yield served


def _paths() -> list[str]:
    """One address of every route there is, and of Optuna's."""
    ours = [each.path for page in app.PAGES for each in page() if isinstance(each, Route)]
    filled = [path.replace("{name}", "style.css").replace("{number}", "1") for path in ours]
    optuna = ["/dashboard", "/api/studies", "/api/meta", "/static/bundle.js", "/favicon.ico"]
    return sorted({*filled, *optuna, "/artifacts/1/1", "/metrics", "/nothing"})


def test_without_the_token_nothing_is_served_but_the_life_sign_and_the_form(
    guarded: Served,
) -> None:
    for path in _paths():
        answer = guarded.ask(path)
        if path == "/healthz":
            assert (answer.status, answer.body) == (200, b"ok\n")
        elif path == "/login":
            assert answer.status == 200
        else:
            assert (answer.status, path) == (401, path)
            assert answer.json == {"reason": "this needs the dashboard's token"}
            assert answer.headers["www-authenticate"] == 'Bearer realm="cubeopt"'
    assert guarded.ask(NOTE, "PUT", {"body": "x", "version": 1}).status == 401
    assert guarded.ask("/logout", "POST").status == 401


def test_a_script_shows_the_token_in_a_header(guarded: Served) -> None:
    right, wrong = f"Bearer {TOKEN}", f"Bearer {TOKEN[:-1]}x"
    assert guarded.ask("/data/overview", Authorization=right).json == []
    assert guarded.ask("/readyz", Authorization=right).status == 200
    assert guarded.ask("/api/studies", Authorization=right).status == 200
    refused = guarded.ask("/data/overview", Authorization=wrong)
    assert (refused.status, refused.json) == (401, {"reason": "that is not the dashboard's token"})
    assert guarded.ask(f"/data/overview?token={TOKEN}").status == 401
    assert guarded.ask("/data/overview", Authorization=f"Basic {TOKEN}").status == 401
    assert guarded.ask("/data/overview", Authorization="Bearer \xe9").status == 401


def test_a_person_logs_in_by_a_form_and_out_again(
    guarded: Served, viewer: Viewer, axe: Callable[[Page], None]
) -> None:
    page = viewer.open(f"{guarded.url}/?a=1&b=2")
    assert page.url == f"{guarded.url}/login?next=/%3Fa%3D1%26b%3D2"
    axe(page)
    page.get_by_label("Token").fill("not the token at all")
    page.keyboard.press("Enter")
    page.get_by_text("That is not the token.").wait_for()
    assert viewer.troubles.pop().endswith("401 (Unauthorized)")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Studies").wait_for()
    assert page.url == f"{guarded.url}/?a=1&b=2"
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert TOKEN not in cookie["value"]
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Token").wait_for()
    assert page.context.cookies() == []
    kept = f"{cookie['name']}={cookie['value']}"
    assert guarded.ask("/data/overview", Cookie=kept).status == 401


def test_pages_whose_server_was_started_again_ask_for_the_token(
    module_engine: Engine, tmp_path: Path, viewer: Viewer
) -> None:
    def log_in() -> None:
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.locator("#live", has_text="live").wait_for()

    with serving(module_engine, tmp_path, TOKEN) as served:
        page = viewer.open(f"{served.url}/workers")
        log_in()
        overview = page.context.new_page()
        overview.goto(f"{served.url}/")
    page.locator("#live", has_text="does not answer").wait_for()
    with serving(module_engine, tmp_path, TOKEN, int(served.url.rpartition(":")[2])):
        overview.get_by_label("Token").wait_for()
        assert overview.url == f"{served.url}/login?next=/"
        page.get_by_label("Token").wait_for()
        assert page.url == f"{served.url}/login?next=%2Fworkers"
        log_in()
        viewer.close()
    expected = "net::ERR_", "401 (Unauthorized)"
    viewer.troubles = [
        each for each in viewer.troubles if not any(said in each for said in expected)
    ]


@pytest.mark.parametrize(
    ("asked", "led"),
    [
        ("/workers?x=1", "/workers?x=1"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("/login", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
    ],
)
def test_a_login_leads_to_our_own_pages_only(guarded: Served, asked: str, led: str) -> None:
    answer = _post(guarded, "/login", {"token": TOKEN, "next": asked})
    assert (answer.status, answer.getheader("Location")) == (303, led)
    assert "Max-Age=604800" in (answer.getheader("Set-Cookie") or "")


def test_who_guesses_too_often_has_to_wait(module_engine: Engine, tmp_path: Path) -> None:
    with serving(module_engine, tmp_path, TOKEN) as served:
        answer = _post(served, "/login", {"token": TOKEN, "next": "/"})
        cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
        for _ in range(5):
            assert served.ask("/", Authorization="Bearer wrong").status == 401
            assert _post(served, "/login", {"token": "wrong"}).status == 401
        refused = served.ask("/", Authorization=f"Bearer {TOKEN}")
        assert refused.status == 429
        assert 0 < int(refused.headers["retry-after"]) <= 61
        assert _post(served, "/login", {"token": TOKEN}).status == 429
        assert served.ask("/data/overview", Cookie=cookie).status == 200


def test_the_wait_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(door, "monotonic", lambda: now)
    guesses = door.Guesses()
    for _ in range(10):
        assert guesses.wait("there") == 0.0
        guesses.count("there")
        now += 1.0
    assert guesses.wait("there") == 50.0
    assert guesses.wait("elsewhere") == 0.0
    now += 50.0
    assert guesses.wait("there") == 0.0


def test_a_session_ends_after_a_week_and_the_oldest_of_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(door, "monotonic", lambda: now)
    sessions = door.Sessions()
    first = sessions.begin()
    now = 7 * 24 * 3600 - 1.0
    assert sessions.know(first)
    assert not sessions.know("")
    now += 1.0
    assert not sessions.know(first)
    old = sessions.begin()
    for _ in range(1000):
        newest = sessions.begin()
    assert not sessions.know(old)
    assert sessions.know(newest)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "[::2]", "a@b", "", "["])
def test_who_means_another_machine_is_not_answered(dashboard: Served, host: str) -> None:
    for path in ("/", "/data/overview", "/api/studies", "/dashboard", "/healthz"):
        answer = dashboard.ask(path, Host=host)
        assert (answer.status, "answers to 127.0.0.1, ::1, localhost" in answer.text) == (421, True)


def test_this_machine_has_three_names(dashboard: Served) -> None:
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080"):
        assert dashboard.ask("/data/overview", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_a_page_of_another_site_cannot_write(dashboard: Served, headers: dict[str, str]) -> None:
    answer = dashboard.ask(NOTE, "PUT", {"body": "x", "version": 1}, **headers)
    assert (answer.status, answer.json) == (
        403,
        {"reason": "another site's page may not write here"},
    )


def test_what_is_sent_is_short_and_says_so(dashboard: Served) -> None:
    for name, value, status in (
        ("Content-Length", "1000001", 413),
        ("Transfer-Encoding", "chunked", 411),
    ):
        connection = _connection(dashboard)
        connection.putrequest("PUT", NOTE)
        connection.putheader(name, value)
        connection.endheaders()  # and nothing of the content
        assert connection.getresponse().status == status
        connection.close()


def test_every_answer_tells_browsers_to_run_and_show_nothing_of_others(dashboard: Served) -> None:
    for path in _paths():
        if path.startswith("/events/"):  # never ends
            continue
        headers = dashboard.ask(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        # Files have scripts of their own, and the rights of nobody.
        scripts = policy.partition("script-src")[2].partition(";")[0]
        assert "unsafe-inline" not in scripts or policy.startswith("sandbox allow-scripts;")
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
    assert "unsafe-eval" not in dashboard.ask("/").headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../app.py",
        "/assets/..%2fapp.py",
        "/assets/%2e%2e/app.py",
        "/assets/....//app.py",
        "/assets//etc/passwd",
        "/assets/style.css%00.js",
        "/static/../index.html",
        "/static/..%2f_app.py",
        "/static/%2e%2e/_app.py",
        "/static//etc/passwd",
        "/artifacts/1/../../etc/passwd",
        "/artifacts/1/..%2f..%2fetc%2fpasswd",
    ],
)
def test_nothing_beside_the_assets_is_reached(dashboard: Served, path: str) -> None:
    answer = dashboard.ask(path)
    assert answer.status in (403, 404, 500) if path.startswith("/static") else answer.status == 404
    assert b"import" not in answer.body
    assert b"root:" not in answer.body


@pytest.mark.parametrize(
    ("host", "refused"),
    [("0.0.0.0", True), ("::", True), ("10.1.2.3", True), ("127.0.0.1", False), ("::1", False)],
)
def test_beyond_this_machine_a_token_is_needed(host: str, refused: bool) -> None:
    assert door.at(host, TOKEN).token == TOKEN
    assert TOKEN not in repr(door.at(host, TOKEN))
    if not refused:
        assert host in door.at(host, None).names
        return
    with pytest.raises(InputError) as raised:
        door.at(host, None)
    assert str(raised.value) == (
        f"--host {host} lets other machines in, and whoever reaches the dashboard sees all "
        "studies, so it needs a token: set CUBEOPT_DASHBOARD_TOKEN or give --token-file FILE; "
        "one is made by: openssl rand -hex 32"
    )


def test_a_token_is_that_of_the_file_or_else_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBEOPT_DASHBOARD_TOKEN", raising=False)
    assert door.read_token(None) is None
    monkeypatch.setenv("CUBEOPT_DASHBOARD_TOKEN", "of the environment".replace(" ", "-"))
    assert door.read_token(None) == "of-the-environment"
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert door.read_token(tmp_path / "token") == TOKEN


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has at least 16 characters, this one has 0; one is made by: openssl rand -hex 32"),
        ("x" * 15, "has at least 16 characters, this one has 15"),
        ("with some spaces in it", "is one line of ASCII letters, digits and signs"),
        ("two-lines-of-a-file\nof-token", "is one line of ASCII"),
        ("größer-als-sechzehn", "is one line of ASCII"),
    ],
)
def test_a_token_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, said: str
) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError, match=said) as raised:
        door.read_token(tmp_path / "token")
    assert not content or content not in str(raised.value)
    monkeypatch.setenv("CUBEOPT_DASHBOARD_TOKEN", content)
    with pytest.raises(ConfigError, match=f"CUBEOPT_DASHBOARD_TOKEN: a token {said}"):
        door.read_token(None)


def test_a_file_of_a_token_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the token in .*: No such file"):
        door.read_token(tmp_path / "nowhere")


def _post(served: Served, path: str, form: dict[str, str]) -> http.client.HTTPResponse:
    """A form as a browser sends it."""
    connection = _connection(served)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": served.url}
    connection.request("POST", path, urlencode(form), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def _connection(served: Served) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=30)
