"""The tree: the same bracketing, whoever reduced what when."""

from __future__ import annotations

import random

import pytest

from blemish.errors import UsageError
from blemish.models.components.image_order import OrderedFold, check_union, numbered


def brackets(left: str, right: str) -> str:
    return f"({left}{right})"


def tree(blocks: list[int], fan_in: int) -> OrderedFold[str]:
    fold: OrderedFold[str] = OrderedFold(brackets, fan_in)
    for block in blocks:
        fold.add(block, block + 1, f"{block:x}")
    return fold


def test_shape_of_the_tree() -> None:
    assert tree(list(range(8)), 2).fold() == "(((01)(23))((45)(67)))"
    assert [part.value for part in tree(list(range(7)), 2).parts] == ["((01)(23))", "(45)", "6"]
    assert [part.value for part in tree(list(range(10)), 4).parts] == ["((((01)2)3)(((45)6)7))", "(89)"]
    assert [part.value for part in tree([5, 6, 7, 8], 4).parts] == ["5", "6", "7", "8"]  # 4 must come first
    assert OrderedFold(brackets, 2).fold() is None


@pytest.mark.parametrize("fan_in", [2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 9, 64, 65, 150])
def test_any_order_and_any_division_give_one_result(count: int, fan_in: int) -> None:
    expected = tree(list(range(count)), fan_in).fold()
    rng = random.Random(count)
    for parts in (1, 2, 3, 5, 8):
        blocks = list(range(count))
        rng.shuffle(blocks)
        shares = [tree(blocks[i::parts], fan_in) for i in range(parts)]
        together: OrderedFold[str] = OrderedFold(brackets, fan_in)
        for share in shares:
            for part in share.parts:
                together.add(part.start, part.stop, part.value)
        assert together.fold() == expected


@pytest.mark.parametrize("fan_in", [2, 8])
def test_few_results_wait(fan_in: int) -> None:
    one_pass, middle = tree([], fan_in), tree([], fan_in)
    for block in range(500):
        one_pass.add(block, block + 1, "")
        middle.add(block + 3, block + 4, "")
        levels = next(level for level in range(20) if fan_in**level > block)
        assert len(one_pass.parts) <= levels + 1
        assert len(middle.parts) <= (levels + 1) * 2 * (fan_in - 1)


def test_results_of_the_same_blocks_are_combined() -> None:
    fold = tree([0, 2, 2], 2)
    assert [part.value for part in fold.parts] == ["0", "(22)"]
    fold.add(1, 2, "1")
    fold.add(0, 2, "x")
    assert [part.value for part in fold.parts] == ["((01)x)", "(22)"]


def test_numbers_of_images() -> None:
    assert list(numbered(None, 3, 7)) == [7, 8, 9]
    assert list(numbered([7, 9, 12], 3, 7)) == [7, 9, 12]
    with pytest.raises(UsageError, match=r"Each image needs its number. Got 3 images, 2 numbers."):
        numbered([7, 9], 3, 0)
    for images in ([-1], [3, 3], [3, 2]):
        with pytest.raises(UsageError, match=rf"must rise from 0, each once. Got {images[-1]} after"):
            numbered(images, len(images), 0)
    check_union([], 4, 4)
    with pytest.raises(UsageError, match=r"Got image 2 in both"):
        check_union([5, 2], 4, 9)
    with pytest.raises(UsageError, match=r"Got 5 images with numbers up to 3"):
        check_union([], 5, 4)
