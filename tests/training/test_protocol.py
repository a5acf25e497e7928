"""Tests of the configuration of windows, flips and scales."""

from __future__ import annotations

from typing import Any

import pytest

from fcnlab.errors import ConfigError
from fcnlab.training.protocol import Protocol


def test_a_protocol_has_a_name_and_a_slug_for_files() -> None:
    assert str(Protocol()) == Protocol().slug == "plain"
    full = Protocol((0.75, 1, 1.25), flip=True, window=(512, 256), stride=(341, 170))
    assert str(full) == "flip+0.75,1,1.25+window512x256/341x170"
    assert full.slug == "flip+0.75_1_1.25+window512x256-341x170"
    assert Protocol(flip=True).is_augmented and not Protocol(window=(4, 4), stride=(2, 2)).is_augmented


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scales": ()}, "--scales"),
        ({"scales": (1.0, 1.0)}, "--scales"),
        ({"scales": (0.0, 1.0)}, "--scales"),
        ({"scales": (float("nan"),)}, "--scales"),
        ({"window": (4, 4)}, "--stride"),
        ({"stride": (4, 4)}, "--window"),
        ({"window": (4, 0), "stride": (1, 1)}, "1 pixel"),
        ({"window": (4, 4), "stride": (2, 5)}, "gaps"),
    ],
)
def test_an_invalid_protocol_is_rejected(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Protocol(**fields)
    assert "\n" not in str(caught.value)


def test_scales_times_the_scale_of_the_recipe_are_checked_and_both_are_named() -> None:
    assert Protocol(scales=(0.5, 1.0)).multiply_scales(0.6).scales == (0.3, 0.6)
    with pytest.raises(ConfigError, match=r"--scales: 0\.5,1 times the recipe's score_scale, 0\.1, .* not 0\.05,0\.1"):
        Protocol(scales=(0.5, 1.0)).multiply_scales(0.1)
