"""Fill the generated table of docs/reliability.md with the outcomes of the harnesses in benchmarks/failures.

    python docs/fill_reliability.py

Each harness writes its outcomes with `--json docs/reliability/NAME.json`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("reliability.md")
BLOCK = re.compile(r"(<!-- generated: failures -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite docs/reliability.md in place."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda block: f"{block[1]}\n{format_tables()}\n{block[2]}", text), encoding="utf-8")


def format_tables() -> str:
    """Return a Markdown table for each harness, in the order of their files. Failures with one outcome are one row."""
    files = sorted(PAGE.with_suffix("").glob("*.json"))
    return "\n".join(_format_table(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def _format_table(harness: dict[str, Any]) -> str:
    minutes = max(1, round(harness["seconds"] / 60))
    lines = [
        f"`{harness['command']}`, {minutes} minute{'s' * (minutes != 1)}; {'; '.join(harness['machine'])}.",
        "",
        "| failure | what fcnlab does | tried | failed |",
        "| --- | --- | ---: | ---: |",
    ]
    by_expected: dict[str, list[dict[str, Any]]] = {}
    expected = ""
    for outcome in harness["outcomes"]:
        expected = expected if outcome["expected"] == "the same" else outcome["expected"]
        by_expected.setdefault(expected, []).append(outcome)
    for expected, outcomes in by_expected.items():
        failures = _join([outcome["failure"] for outcome in outcomes])
        tried, bad = sum(outcome["tried"] for outcome in outcomes), sum(len(outcome["bad"]) for outcome in outcomes)
        cells = (failures, expected, f"{tried:,}", str(bad))
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "".join(f"{line}\n" for line in lines)


def _join(failures: list[str]) -> str:
    """Join descriptions, and write a common beginning up to a colon once."""
    by_subject: dict[str, list[str]] = {}
    for failure in failures:
        subject, colon, detail = failure.partition(": ")
        by_subject.setdefault(subject + colon, []).append(detail)
    return "; ".join(subject + "; ".join(details) for subject, details in by_subject.items())


if __name__ == "__main__":
    main()
