"""Long work tells how far it is."""

from __future__ import annotations

from blemish.progress import silent, watched


def test_a_call_before_each_item_and_one_at_the_end() -> None:
    seen: list[object] = []
    for item in watched("ab", "letters", lambda *call: seen.append(call)):
        seen.append(item)
    assert seen == [("letters", 0, 2), "a", ("letters", 1, 2), "b", ("letters", 2, 2)]


def test_silent_takes_what_watched_tells() -> None:
    assert list(watched([1, 2], "numbers", silent)) == [1, 2]
