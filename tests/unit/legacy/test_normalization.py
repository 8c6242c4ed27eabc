from __future__ import annotations

import os
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blemish.errors import UsageError
from blemish.functional import verdict
from blemish.post_processing.normalization import cdf, min_max

GOLDEN = Path(os.environ.get("BLEMISH_GOLDEN", "../shared/golden")) / "peer_numbers.npz"
KINDS: dict[str, Any] = {"array": np.asarray, "tensor": torch.as_tensor}


@pytest.mark.parametrize("kind", KINDS)
def test_min_max_puts_the_threshold_at_one_half(kind: str) -> None:
    scores = KINDS[kind](np.array([[0.0, 2.0, 3.0], [4.0, 6.0, 99.0]], np.float32))
    out = min_max.normalize(scores, 3.0, 1.0, 6.0)
    assert type(out) is type(scores)
    assert out.dtype == scores.dtype
    np.testing.assert_allclose(np.asarray(out), [[0, 0.3, 0.5], [0.7, 1, 1]], atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_min_max_of_equal_bounds_is_a_step(kind: str) -> None:
    out = min_max.normalize(KINDS[kind](np.array([1.9, 2.0, 2.1])), 2.0, 5.0, 5.0)
    assert np.asarray(out).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_min_max_calls_nothing_normal_that_is_not_finite(kind: str) -> None:
    out = min_max.normalize(KINDS[kind](np.array([np.nan, np.inf, -np.inf], np.float32)), 2.0, 0.0, 5.0)
    assert np.asarray(out).tolist() == [1, 1, 1]


finite = st.floats(-1e6, 1e6, width=32)


@given(scores=st.lists(st.floats(width=32), min_size=1, max_size=9), threshold=finite, low=finite, high=finite)
def test_arrays_and_tensors_are_normalized_alike(
    scores: list[float], threshold: float, low: float, high: float
) -> None:
    low, high = min(low, high), max(low, high)
    array = np.array(scores, np.float32)
    expected = verdict.normalize(torch.tensor(array), *(torch.tensor(x) for x in (threshold, low, high))).numpy()
    np.testing.assert_allclose(min_max.normalize(array, threshold, low, high), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(min_max.normalize(torch.tensor(array), threshold, low, high).numpy(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_numbers_become_fractions(kind: str) -> None:
    scores = KINDS[kind](np.array([0, 5, 10]))
    np.testing.assert_allclose(np.asarray(min_max.normalize(scores, 5, 0, 10)), [0, 0.5, 1])
    np.testing.assert_allclose(np.asarray(cdf.standardize(scores, 0, 1))[1:], np.log([5, 10]), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_cdf_agrees_with_the_normal_distribution(kind: str) -> None:
    z = np.linspace(-6, 6, 41).reshape(1, 41)
    out = cdf.normalize(KINDS[kind](z), 0.3)
    assert type(out) is type(KINDS[kind](z))
    expected = [NormalDist().cdf(value - 0.3) for value in z[0]]
    np.testing.assert_allclose(np.asarray(out)[0], expected, rtol=1e-6)  # the reference loses digits far out


@pytest.mark.parametrize("kind", KINDS)
def test_standardize_moves_the_center_when_asked(kind: str) -> None:
    scores = np.array([0.0, 1.0, np.e, np.e**3])
    out = np.asarray(cdf.standardize(KINDS[kind](scores), mean=1.0, std=2.0))
    np.testing.assert_allclose(out, [-np.inf, -0.5, 0, 1], atol=1e-12)
    moved = np.asarray(cdf.standardize(KINDS[kind](scores), mean=1.0, std=2.0, center_at=3.0))
    np.testing.assert_allclose(moved, [-np.inf, -1.5, -1, 0], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_may_be_maps_of_the_same_kind(kind: str) -> None:
    make = KINDS[kind]
    scores, mean, std = make(np.ones((2, 3))), make(np.arange(3.0)), make(np.full((2, 1), 2.0))
    np.testing.assert_allclose(np.asarray(cdf.standardize(scores, mean, std)), [[0, -0.5, -1]] * 2)
    np.testing.assert_allclose(np.asarray(min_max.normalize(scores, mean, mean - 1, mean + 1)), [[1, 0.5, 0]] * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_not_modified(kind: str) -> None:
    scores = KINDS[kind](np.linspace(0.1, 9, 7))
    before = np.asarray(scores).copy()
    min_max.normalize(scores, 3, 1, 5)
    cdf.standardize(scores, 0.5, 2.0)
    cdf.normalize(scores, 0.5)
    np.testing.assert_array_equal(np.asarray(scores), before)


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_logarithm_is_named(kind: str) -> None:
    for bad in (-1.0, np.nan):
        with pytest.raises(UsageError, match=r"targets must not be negative or NaN"):
            cdf.standardize(KINDS[kind](np.array([1.0, bad])), 0.0, 1.0)
    with pytest.raises(UsageError, match=r"std must be positive\. Got 0\."):
        cdf.standardize(KINDS[kind](np.ones(2)), 0.0, 0)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the stored numbers are not on this machine")
@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_of_earlier_releases_are_met(kind: str) -> None:
    with np.load(GOLDEN) as stored:
        golden = {name.removeprefix("norm."): stored[name] for name in stored if name.startswith("norm.")}
    targets = KINDS[kind](golden.pop("targets"))
    standardized = cdf.standardize(targets + 0.1, 0.4, 0.8)
    ours = {
        "min_max_thr3.7_min0.2_max8.5": min_max.normalize(targets, 3.7, 0.2, 8.5),
        "cdf_standardized_mean0.4_std0.8": standardized,
        "cdf_standardized_center1.1": cdf.standardize(targets + 0.1, 0.4, 0.8, center_at=1.1),
        "cdf_normalized_thr0.3": cdf.normalize(standardized, 0.3),
    }
    assert ours.keys() == golden.keys()
    for name, values in ours.items():
        np.testing.assert_allclose(np.asarray(values), golden[name], rtol=1e-5, atol=1e-6, err_msg=name)
