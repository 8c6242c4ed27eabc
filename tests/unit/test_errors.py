"""The exception tree is what its docstring draws, and its messages carry what a caller needs."""

from __future__ import annotations

import inspect
import pickle
import re

from blemish import errors

CLASSES = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}


def test_docstring_draws_the_tree() -> None:
    drawn = re.findall(r"\+- (\w+)(?: \((\w+)\))?", errors.__doc__ or "")
    assert {name for name, _ in drawn} | {"BlemishError"} == set(CLASSES)
    for name, builtin in drawn:
        kind = CLASSES[name]
        assert issubclass(kind, errors.BlemishError)
        if builtin:
            assert builtin in {base.__name__ for base in kind.__mro__}


def test_image_read_error_names_the_file() -> None:
    error = errors.ImageReadError("a/b.png", "no such file")
    assert str(error) == "a/b.png: no such file"
    assert (error.path, error.reason) == ("a/b.png", "no such file")
    assert isinstance(error, errors.DataError)


def test_missing_extra_holds_the_command() -> None:
    error = errors.MissingExtraError("torch", "train")
    assert str(error) == 'This needs torch, which is not installed. Run: pip install "blemish[train]"'
    assert isinstance(error, ImportError)


def test_image_read_error_survives_worker_processes() -> None:
    """Loader workers send exceptions by pickle."""
    error = errors.ImageReadError("a.png", "the file is empty")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert vars(again) == vars(error)
