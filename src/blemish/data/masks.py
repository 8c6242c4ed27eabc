"""Masks among the images of a folder: told from pictures, and given to the picture that they belong to.

A mask that is taken for a picture is "found" as a defect, and the figures of a test rise. Names decide where they can:
a folder called `ground_truth`, a file `012_mask.png` beside `012.png`. Where names alone only hint at it (`012.png`
beside `012.jpg`, `012_xyz.png`, a folder with the same file names as another), a few of the files are looked at: masks
have two values.

    test/hole/012.png    ground_truth/hole/012_mask.png       above = (), below = (hole), stem 012
                         test/hole/masks/012.png              above = (test, hole), below = ()
                         test/hole/012_mask.png               the same
                         ground_truth/hole/012/000.png        a folder of masks that mark it together

A mask belongs to the picture that lies below `above`, in folders among which are those of `below`, and has its stem.
Of several such pictures the one in the fewest other folders is meant; if there are still several, it isn't clear.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias, TypeVar

from blemish.data.image_io import looks_like_a_mask
from blemish.data.words import MASK_NAMES, without_mask_word

T = TypeVar("T")
_LOOKED_AT = 3  # files of one kind that are decoded to tell masks from pictures


@dataclass(frozen=True)
class MaskFile:
    """A mask and where its picture must lie; all folders and stems in lower case.

    Attributes:
        path: the file.
        name: its path below the root.
        above: folders from the root down to where pictures and masks part.
        below: folders between there and the mask, but for the one that says "masks".
        stems: what the picture may be called.
    """

    path: Path
    name: str
    above: tuple[str, ...]
    below: tuple[str, ...]
    stems: frozenset[str]


def folders_of(name: str) -> tuple[str, ...]:
    """The folders of a path below the root, in lower case."""
    return tuple(part.lower() for part in PurePosixPath(name).parts[:-1])


def stem_of(name: str) -> str:
    """The file name of a path without its suffix, in lower case."""
    return PurePosixPath(name).stem.lower()


def separate(images: Mapping[str, Path]) -> tuple[dict[str, Path], list[MaskFile]]:
    """Tell masks from pictures.

    Args:
        images: path below the root -> file.

    Returns:
        The pictures, in the same form, and the masks.
    """
    pictures = dict(images)
    masks: list[MaskFile] = []

    def take(name: str, above: tuple[str, ...], below: tuple[str, ...], stems: Iterable[str | None]) -> None:
        masks.append(MaskFile(pictures.pop(name), name, above, below, frozenset(filter(None, stems))))

    for name in images:
        folders, stem = folders_of(name), stem_of(name)
        at = next((i for i, folder in enumerate(folders) if folder in MASK_NAMES), None)
        if at is not None:
            take(name, folders[:at], folders[at + 1 :], (stem, without_mask_word(stem)))
    for folders, names in _grouped(pictures, folders_of).items():
        stems = {stem_of(name) for name in names}
        for name in names:
            image = without_mask_word(stem_of(name))
            if image is not None and (image in stems or looks_like_a_mask(pictures[name])):
                take(name, folders, (), (image,))
    for find in (_other_suffixes, _longer_names, _twin_folders):
        for candidates in find(pictures):
            if _are_masks(candidates, pictures):
                for name, partners in candidates.items():
                    folders = folders_of(name)
                    above = folders if folders_of(partners[0]) == folders else folders[:-1]
                    take(name, above, (), (stem_of(partners[0]),))
    return pictures, masks


def pair(
    names: Mapping[T, str], anomalous: Callable[[T], bool], masks: Sequence[MaskFile]
) -> tuple[dict[T, Path], dict[str, str]]:
    """Give pictures their masks.

    Args:
        names: picture -> its path below the root.
        anomalous: whether a picture shows a defect. Where good and anomalous ones could be meant, the latter are.
        masks: see `separate`.

    Returns:
        The mask of every picture that has one, a file or a folder of files; and, path -> reason, the pictures whose
        mask isn't clear, the anomalous ones without, and the masks without picture.
    """
    by_stem: dict[str, list[tuple[T, tuple[str, ...]]]] = defaultdict(list)
    for picture, name in names.items():
        by_stem[stem_of(name)].append((picture, folders_of(name)))

    claims: dict[T, dict[Path, str]] = defaultdict(dict)  # picture -> its masks
    shared: dict[str, int] = {}
    for mask in masks:
        path, name = mask.path, mask.name
        found = _owners(mask, (place for stem in mask.stems for place in by_stem.get(stem, ())))
        if not found and mask.below:  # a folder per picture, with the masks of its defects
            together = replace(mask, below=mask.below[:-1], stems=frozenset(mask.below[-1:]))
            found = _owners(together, by_stem.get(mask.below[-1], ()))
            path, name = path.parent, str(PurePosixPath(name).parent)
        found = [picture for picture in found if anomalous(picture)] or found
        shared[mask.name] = shared[name] = len(found)
        for picture in found:
            claims[picture][path] = name

    paired: dict[T, Path] = {}
    problems: dict[str, str] = {}
    for picture, name in names.items():
        claimed = claims.get(picture, {})
        if len(claimed) == 1 and shared[next(iter(claimed.values()))] == 1:
            paired[picture] = next(iter(claimed))
        elif claimed:
            problems[name] = f"its mask is not clear, none is used: {', '.join(sorted(claimed.values()))}"
        elif masks and anomalous(picture):
            problems[name] = "anomalous, but no mask has its name"
    problems |= {mask.name: "no image has the name of this mask" for mask in masks if not shared[mask.name]}
    return paired, problems


def _owners(mask: MaskFile, places: Iterable[tuple[T, tuple[str, ...]]]) -> list[T]:
    """The pictures below `mask.above` with the fewest folders besides those of `mask.below`."""
    found: dict[int, list[T]] = defaultdict(list)
    for picture, folders in places:
        rest = iter(folders[len(mask.above) :])
        if folders[: len(mask.above)] == mask.above and all(folder in rest for folder in mask.below):
            found[len(folders)].append(picture)
    return found[min(found)] if found else []


Candidates: TypeAlias = dict[str, list[str]]
"""Files that may be masks -> the pictures they may belong to."""


def _are_masks(candidates: Candidates, pictures: Mapping[str, Path]) -> bool:
    """Whether some of them look so, and their pictures don't: a camera may give two values, too."""
    chosen = list(candidates)[:: -(-len(candidates) // _LOOKED_AT)]
    if not all(looks_like_a_mask(pictures[name]) for name in chosen):
        return False
    partners = [name for name in candidates[chosen[0]] if name in pictures]
    return not all(looks_like_a_mask(pictures[name]) for name in partners[:_LOOKED_AT])


def _other_suffixes(pictures: Mapping[str, Path]) -> Iterator[Candidates]:
    """Files of a folder that differ from another in nothing but the suffix; together, those of one suffix."""
    for names in _grouped(pictures, folders_of).values():
        stems = _grouped(names, stem_of)
        kinds: dict[str, Candidates] = defaultdict(dict)
        for twins in (group for group in stems.values() if len(group) > 1):
            for name in twins:
                kinds[PurePosixPath(name).suffix.lower()][name] = [twin for twin in twins if twin != name]
        yield from kinds.values()


def _longer_names(pictures: Mapping[str, Path]) -> Iterator[Candidates]:
    """Files of a folder whose stem is that of another with something behind it; together, those with the same."""
    for names in _grouped(pictures, folders_of).values():
        stems = {stem_of(name): name for name in names}
        kinds: dict[str, Candidates] = defaultdict(dict)
        for stem, name in stems.items():
            cuts = [i for i, letter in enumerate(stem) if letter in "_-. " and stem[:i] in stems]
            if cuts:
                kinds[stem[cuts[-1] :]][name] = [stems[stem[: cuts[-1]]]]
        yield from kinds.values()


def _twin_folders(pictures: Mapping[str, Path]) -> Iterator[Candidates]:
    """Folders all of whose stems are in another folder, too."""
    homes = _grouped(pictures, stem_of)
    for folders, names in _grouped(pictures, folders_of).items():
        twins = {name: [twin for twin in homes[stem_of(name)] if folders_of(twin) != folders] for name in names}
        if folders and all(twins.values()):
            yield twins


def _grouped(names: Iterable[str], key: Callable[[str], T]) -> dict[T, list[str]]:
    groups: dict[T, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups
