"""Scripts and Content Security Policy of a page: it makes no request and runs only its own scripts."""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from markupsafe import Markup

from fcnlab.atomic_file import write_atomically
from fcnlab.private_folder import read_own_file
from fcnlab.settings import cache_folder

EXPORT = "globalThis.drawChart = vegaEmbed;"
"""Statement that gives the page's scripts access to the function that draws a chart."""


@cache
def load_vega() -> str:
    """Return the JavaScript of Vega, Vega-Lite and Vega-Embed, 0.9 MB.

    It is bundled by vl-convert, which takes two seconds, and kept in the cache folder, if this is writable. A file of
    another user is not used, since the page would run it.
    """
    import vl_convert

    from fcnlab.report.charts.plot import VEGA_LITE

    file = cache_folder() / "javascript" / f"vega-{version('vl-convert-python')}-{VEGA_LITE}.js"
    kept = read_own_file(file)
    if kept is not None:
        return kept.decode()
    bundle = str(vl_convert.javascript_bundle(EXPORT, vl_version=VEGA_LITE))
    with contextlib.suppress(OSError):  # without a writable cache, the next report bundles it again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda opened: opened.write(bundle.encode()))
        file.chmod(0o644)  # the umask may let the group write
    return bundle


def make_policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Return the Content Security Policy of a page.

    Args:
        styles: texts of its style elements.
        scripts: texts of its script elements.
    """
    sources = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": " ".join(map(_hash_source, styles)),
        "script-src": " ".join(map(_hash_source, scripts)) or "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in sources.items())


def _hash_source(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def to_json(value: Any) -> Markup:
    """Return a value as JSON for a script element, which no text in it can close.

    Args:
        value: value without NaN.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def to_data_uri(content: bytes, kind: str) -> str:
    """Return a file as a data URI.

    Args:
        content: the file.
        kind: its media type.
    """
    return f"data:{kind};base64,{b64encode(content).decode()}"
