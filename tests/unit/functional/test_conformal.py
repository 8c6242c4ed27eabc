"""The luck of a calibration against scipy's Beta distribution and in trials."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import beta

from blemish.errors import UsageError
from blemish.functional.conformal import certified_rate, conditional_rate


@pytest.mark.parametrize(("n", "k"), [(1, 1), (8, 8), (19, 19), (99, 95), (99, 1), (5000, 4990)])
def test_the_rate_that_19_of_20_calibrations_keep_to(n: int, k: int) -> None:
    assert conditional_rate(n, k) == pytest.approx(beta.ppf(0.95, n + 1 - k, k), rel=1e-6)
    assert conditional_rate(n, k, 0.5) == pytest.approx(beta.ppf(0.5, n + 1 - k, k), rel=1e-6)


def test_that_rate_in_trials() -> None:
    """20,000 calibrations on 20 uniform scores, whose false-alarm rate is 1 - threshold."""
    scores = torch.rand(20_000, 20, generator=torch.Generator().manual_seed(3))
    rates = 1 - scores.kthvalue(18, dim=1).values
    assert float((rates <= conditional_rate(20, 18)).float().mean()) == pytest.approx(0.95, abs=0.005)
    assert float(rates.mean()) == pytest.approx(certified_rate(20, 18), abs=0.002)


@pytest.mark.parametrize("arguments", [(5, 0), (5, 6), (5, 5, 1.0), (5, 5, 0.0)])
def test_that_rate_needs_a_rank(arguments: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="1 <= k <= n"):
        conditional_rate(*arguments)
