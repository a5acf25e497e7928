"""Fill the generated blocks of docs/gpu.md with the measurements of accept.py and bench.py on a GPU.

    python docs/fill_gpu.py

A block starts with the name of its file in docs/performance, `<!-- generated: gpu/h100-accept.json -->`, and ends at
`<!-- end -->`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("gpu.md")
BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite docs/gpu.md in place."""
    PAGE.write_text(fill_blocks(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def fill_blocks(page: str) -> str:
    """Return the page with its blocks replaced by the current content of the files.

    Args:
        page: text of docs/gpu.md.
    """
    return BLOCK.sub(
        lambda block: f"{block[1]}\n{format_table(PAGE.parent / 'performance' / block[2])}\n{block[3]}", page
    )


def format_table(file: Path) -> str:
    """Return a Markdown table of the measurements of a run, or of its sections if they list none.

    Args:
        file: JSON file of accept.py or bench.py.
    """
    sections: list[dict[str, Any]] = list(json.loads(file.read_text(encoding="utf-8"))["sections"].values())
    rows = [row for section in sections for row in section["result"].get("table", [])]
    if rows:
        return _table(("measured", "median (smallest to largest)"), [tuple(map(_cell, row)) for row in rows])
    outcomes = [
        (s["section"], "passed" if s["passed"] else "FAILED", f"{s['seconds']:.0f} s", s["detail"]) for s in sections
    ]
    return _table(("section", "", "time", "detail"), [tuple(map(_cell, row)) for row in outcomes])


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: object) -> str:
    """Return a text for a table cell: on one line, without a bar."""
    return " ".join(str(text).split()).replace("|", "/")


if __name__ == "__main__":
    main()
