"""HTML of objects in notebooks.

It contains no colors of text and background, so that it is readable in the light and in the dark theme of a notebook.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MAX_ROWS = 30
"""Most rows that are shown of a table."""


def render_html(title: str, *, headings: Sequence[str] = (), rows: Sequence[Sequence[str]] = (), note: str = "") -> str:
    """Render a title, a table and a note as HTML, with all texts escaped.

    Args:
        title: text above the table; empty for none.
        headings: headings of the columns; empty for a table without them.
        rows: one text per column and row; empty for no table.
        note: text below the table.
    """
    parts = [f"<strong>{escape(title)}</strong>"] if title else []
    if rows:
        head = f"<thead>{_render_row(headings, 'th')}</thead>" if headings else ""
        body = "".join(_render_row(row, "td") for row in rows[:MAX_ROWS])
        parts.append(f"<table>{head}<tbody>{body}</tbody></table>")
    if len(rows) > MAX_ROWS:
        parts.append(f"<div>and {len(rows) - MAX_ROWS} more</div>")
    if note:
        parts.append(f"<div>{escape(note)}</div>")
    return f"<div>{''.join(parts)}</div>"


def _render_row(texts: Iterable[str], tag: str) -> str:
    return "<tr>" + "".join(f'<{tag} style="text-align: left">{escape(text)}</{tag}>' for text in texts) + "</tr>"
