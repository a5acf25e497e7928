"""Passwords and tokens appear in no output, and in no file of a lab."""

from __future__ import annotations

import ast
import html
import io
import json
import logging
import shlex
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote, unquote, unquote_plus, urlencode

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fcnlab.config.recipe import Recipe
from fcnlab.config.validation import validate
from fcnlab.errors import ConfigError, TrackingError
from fcnlab.lab import Lab
from fcnlab.redaction import (
    RedactedStream,
    clean_text,
    escape_line,
    get_logger,
    mask_login,
    redact,
    redact_values,
    remember_uri,
)
from fcnlab.runner.commands import format_command
from fcnlab.runner.publisher import open_tracker
from fcnlab.trial.record import Failure
from tests.cli.conftest import Call, columns, fcnlab  # noqa: F401 - fixtures
from tests.conftest import REPOSITORY
from tests.report.finished_grid import finished_lab

PASSWORD = "s3cr3t"
TOKEN = "tk-0123456789"
BASIC = b64encode(f"alice:{PASSWORD}".encode()).decode()


class _EchoingServer(BaseHTTPRequestHandler):
    """Answers with an error that repeats the credentials of the request, as servers for debugging do."""

    def do_GET(self) -> None:
        status = 401 if self.path.startswith("/unauthorized") else 500
        echo = f"refused {self.headers['Authorization']} of http://alice:{PASSWORD}@{self.headers['Host']}{self.path}"
        body = f'{{"error_code": "INVALID_STATE", "message": "{echo}; {TOKEN}"}}'.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name that the server calls

    def log_message(self, *_arguments: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _EchoingServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def assert_hidden(text: str) -> None:
    for secret in (PASSWORD, TOKEN, BASIC):
        assert secret not in text, text


def test_a_store_that_fails_reveals_no_password_and_no_token(
    fcnlab: Call,  # noqa: F811 - the fixture
    tmp_path: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    grid, _ = finished_lab(tmp_path)
    user = f"://alice:{PASSWORD}@"
    stores = {
        "refused": f"http{user}127.0.0.1:9",
        "unauthorized": f"http{user}127.0.0.1:{port}/unauthorized",
        "echo": f"http{user}127.0.0.1:{port}?token={TOKEN}",
        "malformed": f"http{user}host:port",
        "malformed password": f"http://alice:{PASSWORD}/@127.0.0.1:9",
        "no driver": f"oracle{user}host/db",
    }
    report = fcnlab("report", grid.path, "--tracking-uri", stores["echo"])
    assert report.code == 0 and "not published" in report.err
    calls = [report, fcnlab("ui", "--tracking-uri", stores["echo"])]
    for uri in stores.values():
        sync = fcnlab("grid", "sync", grid.path, "--tracking-uri", uri)
        assert sync.code == 1 and sync.err
        calls.append(sync)
    with pytest.raises(TrackingError) as caught:
        open_tracker(grid, Lab.find(grid.path, tracking_uri=stores["echo"]))
    assert caught.value.__suppress_context__, "the traceback of its cause contains the URI"
    assert_hidden(str(caught.value))
    for call in calls:
        assert "Traceback" not in call.err
        assert_hidden(f"{call.out}{call.err}{caplog.text}")
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert_hidden(file.read_bytes().decode("latin-1"))


def test_records_and_log_messages_contain_no_secrets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", TOKEN)
    failure = Failure(cause="exception", message=f"no {TOKEN}\x1b]0;title\x07", traceback=f"x = '{TOKEN}'\nError")
    assert failure.message == r"no ***\x1b]0;title\x07" and failure.traceback == "x = '***'\nError"
    get_logger("fcnlab.test").warning("node %s: %s", "a", f"https://alice:{PASSWORD}@host/x")
    assert caplog.record_tuples == [("fcnlab.test", logging.WARNING, "node a: https://host/x")]


def test_the_traceback_of_a_process_contains_no_secrets() -> None:
    code = (
        "from fcnlab.redaction import redact_output; redact_output(); import os, logging\n"
        "print('out', os.environ['HF_TOKEN'], '\\x1b[1mbold\\x1b[0m \\x1b]52;c;eA==\\x07')\n"
        "logging.getLogger('library').warning('token %s', os.environ['HF_TOKEN'])\n"
        "raise ValueError(os.environ['HF_TOKEN'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HF_TOKEN": TOKEN, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == "out *** \x1b[1mbold\x1b[0m \\x1b]52;c;eA==\\x07\n"
    assert done.stderr.startswith("token ***\nTraceback") and done.stderr.endswith("ValueError: ***\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/a?X-Amz-Signature=abc&X-Amz-Date=1", "s3://bucket/a?X-Amz-Signature=***&X-Amz-Date=1"),
        ("GET /x?api_key=abc HTTP", "GET /x?api_key=*** HTTP"),
        ("host=db user=alice password=abc port=1", "host=db user=alice password=*** port=1"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
        (r'{"text": "password=\"abc\" or ?token=abc\"}', r'{"text": "password=\"***\" or ?token=***\"}'),
        (r'{"text": "{\"api_key\": \"abc\"}"}', r'{"text": "{\"api_key\": \"***\"}"}'),
        (r'"\"Authorization\": \"Basic YWxpY2U6\""', r'"\"Authorization\": \"Basic ***\""'),
        ("hf_abcdefghijklmnopqrstuvwxyz", "***"),
        ("http://h/#/runs?viewStateShareKey=fcnlab-cells", "http://h/#/runs?viewStateShareKey=fcnlab-cells"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("postgresql://alice@host:5432/db was refused", "postgresql://alice@host:5432/db was refused"),
        ("mysql+pymysql://alice%40corp@host/db", "mysql+pymysql://alice%40corp@host/db"),
        ("postgresql://alice:abc@host/db", "postgresql://host/db"),
        ("postgresql://alice@abc@host/db", "postgresql://host/db"),
        ("https://abc@host/db", "https://host/db"),
        ("Basic training, a token of 8x8 pixels", "Basic training, a token of 8x8 pixels"),
    ],
)
def test_texts_keep_everything_else(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"http://alice:{PASSWORD}@host/ml", "http://USER:PASSWORD@host/ml"),
        (f"postgresql://alice:{PASSWORD}/@@host/db", "postgresql://USER:PASSWORD@host/db"),
        (f"http://{TOKEN}@host", "http://USER:PASSWORD@host"),
        ("postgresql://alice@host/db", "postgresql://alice@host/db"),
        ("http://host/a@b", "http://host/a@b"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_a_recommended_command_shows_where_user_and_password_have_to_be_added(uri: str, shown: str) -> None:
    lab = Lab.find(Path(), tracking_uri=uri)
    assert mask_login(uri) == shown
    command = format_command("report", lab)
    assert command.split("--tracking-uri ")[1] == shlex.quote(shown)
    assert redact(command) == command, "it is printed as it is"


def test_secrets_are_removed_from_each_text_of_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "12345678")
    values = {"question": f'password="{PASSWORD}"?', "miou": 0.12345678, "options": [{"api_key": "abc", "token": None}]}
    shown = {"question": 'password="***"?', "miou": 0.12345678, "options": [{"api_key": "***", "token": None}]}
    assert redact_values(values) == redact_values(shown) == shown


ENCODINGS: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "text": (lambda secret: f"no {secret} here", str),
    "literal": (lambda secret: repr({"message": f"'{secret}\""}), lambda text: str(ast.literal_eval(text))),
    "json": (lambda secret: json.dumps(f"no {secret}"), json.loads),
    "json in utf-8": (lambda secret: json.dumps(f"no {secret}", ensure_ascii=False), json.loads),
    "path of a URI": (lambda secret: f"http://host/{quote(secret)}", unquote),
    "query of a URI": (lambda secret: f"http://host?{urlencode({'q': secret})}", unquote_plus),
    "parameter": (lambda secret: f"http://host?token={secret}&page=1", str),
    "user of a URI": (lambda secret: f"http://alice:{secret}@host/page", str),
    "html": (lambda secret: f"<p>{html.escape(secret)}</p>", html.unescape),
    "shell": (lambda secret: f"export TOKEN={shlex.quote(secret)}", lambda text: " ".join(shlex.split(text))),
    "basic": (lambda secret: b64encode(f"alice:{secret}".encode()).decode(), lambda text: text),
}
"""Functions that write a secret in a text, and that read the text."""

SECRETS = st.text(st.characters(min_codepoint=32, max_codepoint=0x17F, exclude_categories=["Cc"]), min_size=8)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=SECRETS.map(str.strip), encoding=st.sampled_from(sorted(ENCODINGS)), in_a_uri=st.booleans())
def test_no_secret_survives_in_any_encoding(
    monkeypatch: pytest.MonkeyPatch, secret: str, encoding: str, in_a_uri: bool
) -> None:
    assume(len(secret) >= 8 and not secret.isalpha() and not secret.isdecimal())
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    if in_a_uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://alice:{quote(secret, safe='')}@host")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    write, read = ENCODINGS[encoding]
    written = write(secret)
    shown = redact(written)
    assert secret not in shown
    assert encoding != "basic" or written not in shown
    with suppress(ValueError, SyntaxError):  # a quote may be part of what was removed
        assert secret not in read(shown)


@pytest.mark.parametrize(
    ("variable", "value", "secret"),
    [
        ("http_proxy", "http://alice:p%40ss-w0rd@proxy:3128", "p@ss-w0rd"),
        ("HTTPS_PROXY", "alice:pa55-w0rd@proxy:3128", "pa55-w0rd"),
        ("RAY_ADDRESS", "ray://alice:pa55-w0rd@head:10001", "pa55-w0rd"),
        ("MLFLOW_TRACKING_TOKEN", "abcDEFghi", "abcDEFghi"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPx", "wJalrXUtnFEMI/K7MDENG+bPx"),
        ("WANDB_API_KEY", "0123456789abcdef", "0123456789abcdef"),
        ("AZURE_STORAGE_KEY", "k3y/abc==", "k3y/abc=="),
        ("PGPASSWORD", "pa55-w0rd", "pa55-w0rd"),
        ("SSH_PRIVATE_KEY", "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA\n-----END KEY-----", "MIIEowIBAAKCAQEA"),
        ("MY_TOKEN", "caf\udce9-s3cr3t", "caf\udce9-s3cr3t"),
    ],
)
def test_secrets_of_the_environment_are_hidden(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, secret: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert redact(f"refused: {secret}, again") == "refused: ***, again"


@pytest.mark.parametrize(
    "text",
    [
        "{'token': 'abc d'}",
        '{"api_key": "abc"}',
        "X-Api-Key: abcdef",
        "gho_abcdefghijklmnopqrst",
        "eyJhbGciOiJI.eyJzdWIiOiI.abc",
    ],
)
def test_secrets_are_found_by_their_form(text: str) -> None:
    assert "abc" not in redact(text) and "***" in redact(text)


def test_a_lab_is_printed_without_its_tracking_uri() -> None:
    assert PASSWORD not in repr(Lab(Path("lab"), tracking_uri=f"http://alice:{PASSWORD}@host"))


def test_values_are_shortened_after_secrets_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ConfigError) as refused:
        validate(Recipe, {"epochs": "x" * 70 + TOKEN}, "recipes.yaml")
    assert TOKEN[:6] not in str(refused.value)


def test_short_words_are_hidden_only_in_uris(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "true")
    remember_uri("postgresql://mlflow:mlflow@host/db")
    assert (
        redact("true; mlflow gc --uri postgresql://mlflow:mlflow@host/db")
        == "true; mlflow gc --uri postgresql://host/db"
    )


def test_control_characters_are_escaped_and_scripts_are_kept() -> None:
    assert clean_text("a\x1b[2J\x9b1m\u202eb\r") == r"a\x1b[2J\x9b1m\u202eb\r"
    assert clean_text("\ud800\udcff") == r"\ud800\udcff"
    assert escape_line("a\nb\tc\u2028") == r"a\nb\tc\u2028"
    assert clean_text("été\tשלום 道路\nüber") == "été\tשלום 道路\nüber"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m\x1b[?25l\r\x1b[2K\x1b[1A\x1b[2K\x1b[?25h", None),  # of a live table
        ("\rtqdm: 5 %", None),
        ("class\x1b[2J", r"class\x1b[2J"),
        ("\x1b[6n\x1b[5i\x1b[c", r"\x1b[6n\x1b[5i\x1b[c"),
        ("\x1b]8;;http://owned.test\x07link\x1b]8;;\x07", r"\x1b]8;;http://owned.test\x07link\x1b]8;;\x07"),
        ("good\rbad", r"good\rbad"),
        ("\ud83d\u202e\x9b2J\0", r"\ud83d\u202e\x9b2J\x00"),
    ],
)
def test_a_terminal_receives_only_colors_and_the_redrawing_of_lines(text: str, shown: str | None) -> None:
    stream = io.StringIO()
    RedactedStream(stream).write(text)
    assert stream.getvalue() == (text if shown is None else shown)


def test_very_long_words_of_an_error_are_shortened() -> None:
    message = str(ConfigError(f"a.yaml: no head '{'x' * 100_000}'; valid: fcn8s"))
    assert message.startswith("a.yaml: no head 'xxx") and message.endswith("xxx'; valid: fcn8s")
    assert "xxx...xxx" in message and len(message) < 500
