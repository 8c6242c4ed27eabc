"""Trade-off pictures count every score once, on the right side of the threshold."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blemish.visualization.tradeoff import bins, operating_points, tradeoff_svg, tradeoff_text

SCORES = st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=40)


@given(SCORES, st.lists(st.floats(0, 1e6, width=32), max_size=40), st.floats(0, 1e6, width=32), st.integers(2, 30))
def test_each_score_is_counted_once_on_its_side(
    good: list[float], bad: list[float], threshold: float, count: int
) -> None:
    found = bins(good, bad, threshold, count)
    assert sum(one.good for one in found) == len(good)
    assert sum(one.bad for one in found) == len(bad)
    assert all(one.low <= one.high for one in found)
    at = next(i for i, one in enumerate(found) if one.low == threshold)
    assert sum(one.good for one in found[at:]) == sum(score >= threshold for score in good)
    assert sum(one.bad for one in found[at:]) == sum(score >= threshold for score in bad)


def test_operating_points() -> None:
    good, bad = [float(i) for i in range(1, 21)], [5.0, 18.5, 19.5, 40.0]
    found = {point.alarms: point.found for point in operating_points(good, bad)}
    assert found == {0.0: 0.25, 0.05: 0.5, 0.1: 0.75, 0.2: 0.75}
    assert all(np.mean(np.asarray(good) >= point.threshold) == point.alarms for point in operating_points(good, bad))


@pytest.mark.parametrize("bad", [[], [2.0, 3.0, 9.0]])
def test_pictures(bad: list[float]) -> None:
    svg = ElementTree.fromstring(tradeoff_svg([1.0, 1.2, 1.4, 4.0], bad, 3.0, "<planted>"))
    texts = " | ".join(node.text or "" for node in svg.iter() if node.tag.endswith("text"))
    assert "of 100 good images 25 are called anomalous" in texts
    assert ("of 100 <planted> 67 are found" in texts) == bool(bad)
    text = tradeoff_text([1.0, 1.2, 1.4, 4.0], bad, 3.0, block="#")
    assert "of 100 good images 25 called anomalous" in text
    assert text.isascii()
    assert ("planted" in text) == bool(bad)
    assert max(map(len, text.splitlines())) < 100
