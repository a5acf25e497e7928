"""CSV files in spreadsheet programs."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from fcnlab.report.tables.csv_text import to_csv_text


@pytest.mark.parametrize("name", ["=1+1", "+1;x", "-x", "@SUM(A1)", "\t=1", "=HYPERLINK(\"http://x\",'a')"])
def test_names_are_no_formulas_and_numbers_are_unchanged(name: str) -> None:
    frame = pd.DataFrame({"cell": [name, "fcn8s"], name: [-0.5, 1e-9], "axis": ["-1e-3", None]})
    text = to_csv_text(frame)
    again = pd.read_csv(io.StringIO(text), dtype={"axis": str})
    assert list(again.columns) == ["cell", f"'{name}", "axis"]
    assert list(again["cell"]) == [f"'{name}", "fcn8s"]
    assert list(again[f"'{name}"]) == [-0.5, 1e-9] and again["axis"][0] == "-1e-3"


def test_a_frame_of_ordinary_texts_is_written_as_pandas_does() -> None:
    frame = pd.DataFrame(
        {"cell": ["fcn8s", "a, b"], "miou": [0.123456789, None], "n": [1, 2], "baseline": [True, False]}
        | {"params": [4_928_127.0, 1e6], "peak_memory": [85_899_345_921.0, None]}
    )
    assert to_csv_text(frame) == frame.to_csv(index=False, float_format="%.12g")
    again = pd.read_csv(io.StringIO(to_csv_text(frame)))
    pd.testing.assert_frame_equal(again, frame, check_dtype=False, check_exact=True)
    assert again["params"].dtype == int
