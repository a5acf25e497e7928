"""Jinja2 environment of the page's templates."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("fcnlab.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **context: object) -> str:
    """Render a template of `fcnlab/report/html/templates/`; all texts are escaped except for `Markup`.

    Args:
        template: file name of the template.
        context: variables of the template.
    """
    return _environment().get_template(template).render(**context)


@cache
def read_assets(*names: str) -> Markup:
    """Return the text of style sheets or scripts, to be inlined in the page.

    Args:
        *names: file names in `fcnlab/report/html/assets/`, in the order in which the files are joined.
    """
    folder = files("fcnlab.report.html") / "assets"
    return Markup("".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names))
