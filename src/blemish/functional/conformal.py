"""What n scores of normal images certify, on average and with bad luck; without torch."""

from __future__ import annotations

import math

from blemish.errors import UsageError


def certified_rate(n: int, k: int) -> float:
    """The false-alarm rate 1 - k / (n + 1) that the k-th smallest of n normal scores keeps to on average.

    Holds for new normal images drawn like the n (exchangeable), with scores that don't tie (Vovk et al. 2005, split
    conformal).
    """
    return (n + 1 - k) / (n + 1)


def conditional_rate(n: int, k: int, level: float = 0.95) -> float:
    """The false-alarm rate that a share `level` of calibrations keeps to; `certified_rate` is their average.

    With one set of n normal scores drawn, the rate of the threshold at the k-th smallest is fixed: by chance it lies
    above or below the average, as Beta(n + 1 - k, k) for scores that don't tie (Vovk 2012, "Conditional validity of
    inductive conformal predictors"). For k = n this is 1 - (1 - level)^(1 / n).

    Raises:
        UsageError: not 1 <= k <= n, or `level` outside (0, 1).
    """
    if not (1 <= k <= n and 0 < level < 1):
        raise UsageError(f"Needed: 1 <= k <= n and 0 < level < 1. Got n={n}, k={k}, level={level}.")
    # The rate exceeds q where at least k of n scores lie below the (1 - q)-quantile; that falls as q grows.
    low, high = 0.0, 1.0
    for _ in range(60):
        q = (low + high) / 2
        log_terms = (
            math.lgamma(n + 1)
            - math.lgamma(i + 1)
            - math.lgamma(n - i + 1)
            + i * math.log1p(-q)
            + (n - i) * math.log(q)
            for i in range(k, n + 1)
        )
        low, high = (q, high) if math.fsum(map(math.exp, log_terms)) > 1 - level else (low, q)
    return high
