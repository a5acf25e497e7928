"""Removal of secrets and control characters from texts that are printed, recorded or published.

Secrets are passwords and tokens in URIs, values of environment variables that hold a password, a token or a key, and
tokens in formats that can be recognized. Messages of libraries repeat them. Therefore every exit uses this module:
errors, the output of commands and workers, log messages, records, and parameters and tags in MLflow.
"""

from __future__ import annotations

import html
import io
import json
import logging
import os
import re
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO
from urllib.parse import quote, unquote

HIDDEN = "***"
"""Text that replaces a secret."""

LEAST_LINE = 12
"""Least length of a line that is hidden also without the rest of its secret."""

_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:TOKEN|PASS|PASSPHRASE|PWD|SECRETS?|API_?KEY|JWT|CONNECTION_STRING)(?:_|$)|PASSWORD|PASSWD|_KEY(?:_ID)?$"
)
_NO_SECRET_VARIABLE = re.compile(r"_(?:FILE|PATH|DIR|URL|TIMEOUT|TTL)$|^(?:OLD)?PWD$")
_URI_VARIABLE = re.compile(r"(?:^|_)(?:URI|URL|PROXY|ADDRESS|DSN)(?:_|$)")

# A quote can have backslashes: in JSON, and in literals of Python. A backslash before the closing quote must remain.
_OPEN = r"\\*['\"]"
_BEFORE_QUOTE = r"(?!\\+['\"])"

LOGIN = "USER:PASSWORD"
"""Text in a recommended command in place of the user and password of a URI."""

_USER = re.compile(r"(?<=://)([^\s/?#'\"<>]*)@")
_DATABASE = re.compile(r"(?:postgresql|mysql|mssql)(?:\+\w+)?://$", re.IGNORECASE)
_DATABASE_USER = re.compile(r"[\w.%-]+")
_QUERY = re.compile(
    r"([?&;](?:[\w.%-]*(?:token|secret|password|passwd|signature)|(?:[\w.%-]*[_.-])?(?:api_?key|access_?key|credential"
    rf"|key|pwd|sig|auth))=)(?:{_BEFORE_QUOTE}[^&;\s'\"<>#])+",
    re.IGNORECASE,
)
_PASSWORD = re.compile(
    rf"(\b(?:password|passwd|pwd)\s?=\s?(?:{_OPEN})?)(?:{_BEFORE_QUOTE}[^\s'\"&;,)])+", re.IGNORECASE
)
_NAME = r"[\w-]*(?:token|secret|passw(?:or)?d)|[\w-]*(?:api|access|secret)[_-]?key"
_SECRET_KEY = re.compile(_NAME, re.IGNORECASE)
_ITEM = re.compile(
    rf"(?P<start>(?P<quote>{_OPEN})(?:{_NAME})(?P=quote)\s*:\s*(?P<mark>{_OPEN}))"
    r"(?:(?!(?P=mark))(?:\\{3}.|\\.|.))+",
    re.IGNORECASE,
)
"""An item of a dict or JSON object, also of one in a text of another."""

_HEADER = re.compile(
    rf"((?:authorization(?:{_OPEN})?\s*[:=]\s*(?:{_OPEN})?(?:basic|bearer|token)|\bbearer)\s+|\b(?:x-)?api-key:\s*)"
    r"[\w.~+/=-]{6,}",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"\b(?:hf_|gh[opsru]_|github_pat_|glpat-|sk-|xox[abp]-|pypi-|AIza|AKIA|ASIA)[A-Za-z0-9_-]{16,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
)

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, changes of the direction of a text, and surrogates, which no encoding can write."""

_BREAK = re.compile("[\t\n\u2028\u2029]")
_STYLE = re.compile("(\x1b\\[[0-9;]*m|\x1b\\[\\?25[hl]|\r?\x1b\\[(?:[0-9]*A|2K)|\\A\r|\r(?=\n))")
"""Sequences with which rich and tqdm color a text, hide the cursor and redraw the lines of a progress bar.

All others are escaped: some clear the screen, set the clipboard, or make the terminal answer as if the user had typed.
"""

_remembered: set[str] = set()


def remember_uri(uri: str) -> None:
    """Hide the password of a URI from now on, also where it appears in a text without the URI.

    Args:
        uri: a URI that may contain `user:password@`.
    """
    _remembered.update(_list_uri_secrets(uri))


def redact(text: str) -> str:
    """Remove secrets from a text.

    A password that is a short word is hidden in URIs only, since it may be a part of other texts.

    Args:
        text: any text.

    Returns:
        The text without the users and passwords of URIs, and with `***` in place of other secrets. The user of a
        database is kept if there is no password: servers of databases take no token as a user.

    >>> redact("http://alice:s3cr3t@host/api?token=abc was refused")
    'http://host/api?token=*** was refused'
    """
    known = {*_remembered, *_list_environment_secrets()}
    for secret in sorted(filter(_is_distinct, known), key=len, reverse=True):
        text = text.replace(secret, "" if secret.endswith("@") else HIDDEN)
    text = _USER.sub(_remove_user, text)
    text = _ITEM.sub(rf"\g<start>{HIDDEN}", text)
    for pattern in (_QUERY, _PASSWORD, _HEADER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return _TOKEN.sub(HIDDEN, text)


def _remove_user(found: re.Match[str]) -> str:
    is_database = _DATABASE.search(found.string[max(0, found.start() - 40) : found.start()]) is not None
    is_kept = found[1] == LOGIN or (is_database and _DATABASE_USER.fullmatch(found[1]) is not None)
    return found[0] if is_kept else ""


def mask_login(uri: str) -> str:
    """Return a URI for a recommended command, without secrets: `USER:PASSWORD` shows where they have to be added.

    Args:
        uri: a URI that may contain `user:password@`.

    >>> mask_login("http://alice:s3cr3t@host/mlflow")
    'http://USER:PASSWORD@host/mlflow'
    """
    shown = redact(uri)
    scheme, separator, rest = shown.partition("://")
    has_login = "@" in re.split("[/?#]", rest, maxsplit=1)[0] or shown.count("@") == uri.count("@")
    return shown if has_login or not separator else f"{scheme}://{LOGIN}@{rest}"


def redact_values(value: Any) -> Any:
    """Remove secrets from the texts of a value before it is encoded, such as in JSON.

    Secrets are removed from the values, since they have other characters in an encoded text, and the removal of some of
    these could make the document invalid.

    Args:
        value: a text, a number, or mappings and sequences of such values.

    Returns:
        The value without secrets, with dicts and lists. A text whose key is that of a secret, such as `api_key`, is
        hidden.

    >>> redact_values({"question": "Does ?token=abc matter?", "api_key": "abc", "seeds": [0, 1]})
    {'question': 'Does ?token=*** matter?', 'api_key': '***', 'seeds': [0, 1]}
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            redact_values(key): HIDDEN if _is_secret_item(key, item) else redact_values(item)
            for key, item in value.items()
        }
    return [redact_values(item) for item in value] if isinstance(value, Sequence) else value


def _is_secret_item(key: object, item: object) -> bool:
    return isinstance(key, str) and isinstance(item, str) and item != "" and _SECRET_KEY.fullmatch(key) is not None


def escape_control_characters(text: str) -> str:
    r"""Escape characters that change the state of a terminal or the direction of a text; line breaks and tabs are kept.

    Args:
        text: any text.

    >>> escape_control_characters("road\x1b[2J")
    'road\\x1b[2J'
    """
    return _CONTROL.sub(_escape, text)


def escape_line(text: str) -> str:
    r"""Escape control characters, line breaks and tabs, for texts that must stay on one line, such as names of files.

    Args:
        text: any text.

    >>> escape_line("road\nfcnlab: error:")
    'road\\nfcnlab: error:'
    """
    return _BREAK.sub(_escape, escape_control_characters(text))


def find_control_character(text: str) -> str | None:
    r"""Return the escape of the first character that `escape_control_characters` escapes, such as `\x1b`.

    Args:
        text: any text.
    """
    found = _CONTROL.search(text)
    return None if found is None else escape_control_characters(found[0])


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def clean_text(text: str) -> str:
    """Remove secrets from a text, and escape control characters.

    Args:
        text: any text, such as the message of a library.
    """
    return escape_control_characters(redact(text))


class RedactedStream(io.TextIOBase):
    """An output stream without secrets, and without control characters other than those of styles."""

    def __init__(self, stream: TextIO) -> None:
        """Wrap a stream.

        Args:
            stream: standard output or standard error.
        """
        self._stream = stream

    @property
    def original(self) -> TextIO:
        """The wrapped stream, for texts without secrets and control characters."""
        return self._stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """The handling of characters that the encoding lacks."""
        return self._stream.errors

    def write(self, text: str) -> int:
        parts = _STYLE.split(redact(text))
        self._stream.write("".join(part if n % 2 else escape_control_characters(part) for n, part in enumerate(parts)))
        return len(text)

    def flush(self) -> None:
        if not self._stream.closed:
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True


def redact_output() -> None:
    """Remove secrets from everything that this process writes to `sys.stdout` and `sys.stderr` from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, RedactedStream):
            setattr(sys, name, RedactedStream(stream))


def get_logger(name: str) -> logging.Logger:
    """Return a logger whose messages contain no secrets, whatever handlers a program adds.

    Args:
        name: name of the logger.
    """
    logger = logging.getLogger(name)
    if _clean_record not in logger.filters:
        logger.addFilter(_clean_record)
    return logger


def _clean_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = clean_text(record.getMessage()), ()
    return True


def _list_environment_secrets() -> Iterator[str]:
    """Yield the secrets in the environment; it is read each time, since programs set variables later."""
    for name, value in os.environ.items():
        upper = name.upper()
        if _SECRET_VARIABLE.search(upper) and not _NO_SECRET_VARIABLE.search(upper):
            yield from _list_forms(value)
        elif _URI_VARIABLE.search(upper):
            yield from _list_uri_secrets(value)
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        yield _encode_basic(user, password)


def _list_uri_secrets(uri: str) -> Iterator[str]:
    """Yield the password of a URI and its other forms; a password may contain `/` and `@`, as users write it.

    The address of a proxy need not have a scheme.
    """
    rest = uri.partition("://")[2] or uri
    user, at, _ = rest.rpartition("@")
    name, colon, password = user.partition(":")
    if at and colon and "/" not in name and password:
        yield f"{user}@"
        yield from _list_forms(password)
        yield from _list_forms(unquote(password))
        yield _encode_basic(unquote(name), unquote(password))


def _list_forms(secret: str) -> Iterator[str]:
    """Yield the forms in which a secret appears in texts: as it is, and in URIs, JSON, HTML, and literals of Python.

    Args:
        secret: the secret; of one with several lines, such as a private key, each long line is a secret, too.
    """
    secret = secret.strip()
    lines = secret.splitlines()
    for text in (secret, *(line for line in lines if len(lines) > 1 and len(line) >= LEAST_LINE)):
        quoted = quote(text, safe="", errors="surrogateescape")
        yield from (text, quoted, quoted.lower(), quoted.replace("%2F", "/"), quoted.replace("%20", "+"), unquote(text))
        yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1])
        yield from (repr(f'"{text}')[2:-1], html.escape(text), html.escape(text, quote=False))
        yield text.replace("'", "'\"'\"'")  # in a shell


def _encode_basic(user: str, password: str) -> str:
    """Return the credentials in the form of HTTP's basic authentication."""
    return b64encode(f"{user}:{password}".encode(errors="surrogateescape")).decode()


def _is_distinct(secret: str) -> bool:
    """Return whether a secret is unlikely to be a part of other texts: no short word and no short number."""
    if len(secret) >= 12:
        return True
    is_word = secret.isalpha() and (secret.islower() or secret.isupper() or secret.istitle())
    return len(secret) >= 6 and not is_word and not (secret.isdecimal() and len(secret) < 8)
