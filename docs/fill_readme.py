"""Fill the README's generated blocks from the files that they name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite README.md in place."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    filled = BLOCK.sub(lambda block: f"{block[1]}\n{(ROOT / block[2]).read_text(encoding='utf-8')}\n{block[3]}", text)
    readme.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
