from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from blemish.functional.exact_products import exact_products

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def rounded() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def someone_wants_speed() -> Iterator[None]:
    before = rounded()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_products_are_exact_inside_and_as_they_were_outside() -> None:
    with exact_products(GPU):
        assert rounded() == (False, False)
        with exact_products(GPU):
            assert rounded() == (False, False)
        assert rounded() == (False, False)
    assert rounded() == (True, True)


def test_an_error_puts_them_back() -> None:
    with pytest.raises(KeyError), exact_products(GPU):
        raise KeyError
    assert rounded() == (True, True)


def test_other_devices_change_nothing() -> None:
    with exact_products(CPU):
        assert rounded() == (True, True)


def test_a_thread_that_goes_leaves_them_exact_for_one_that_stays() -> None:
    came, may_go = threading.Event(), threading.Event()
    inside = []

    def stays() -> None:
        with exact_products(GPU):
            came.set()
            may_go.wait()
            inside.append(rounded())

    thread = threading.Thread(target=stays)
    with exact_products(GPU):
        thread.start()
        came.wait()
    assert rounded() == (False, False)
    may_go.set()
    thread.join()
    assert inside == [(False, False)]
    assert rounded() == (True, True)
