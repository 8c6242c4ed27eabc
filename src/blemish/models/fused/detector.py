"""Fused: several detectors over one pass of the backbone, whose maps are added.

Distances to a bank, standard deviations and residuals have different units. Each member's patch scores s_m are divided
by their standard deviation sigma_m over all patches of good images that the member has not seen,

    s = sum over m of s_m / sigma_m

which ranks patches as the sum of z-scores does (Jain, Nandakumar and Ross, Pattern Recognition 38, 2005): their means
shift all sums by one number. Why unseen images: a bank is at distance 0 from what it holds, and a Gaussian fits its own
images better than others. (EfficientAD, arXiv 2303.14535, standardizes its two maps on held-out good images likewise.)

So every member is fitted twice: the one that is delivered has seen all images; a witness has seen two of every three,
and scores the third. Of these, features of a few are kept until then. Which ones, follows from the number that an image
has in the whole set, so that parts of a set merge to the bytes of one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from blemish.errors import DataError
from blemish.models import detectors
from blemish.models.base import Detector
from blemish.models.components.image_order import numbered
from blemish.models.fused.settings import FusedSettings
from blemish.models.parts import Parts
from blemish.progress import silent
from blemish.settings import DetectorSettings

if TYPE_CHECKING:
    from typing_extensions import Self

KEPT_IMAGES = 32
"""Most images whose features are kept to be scored by the witnesses."""
GROUP = 3
"""Of so many images in a row, witnesses don't see one."""
GOLDEN = 0.6180339887498949
"""Its multiples, modulo 1, are spread evenly over any part of the images, also over every n-th one."""

SMALLEST = 1e-6
"""Least scale: where all unseen patches score alike, as with one image over and over, there is nothing to divide by."""


class FusedDetector(Detector):
    """Members that share backbone and grid; a patch's score is the sum of theirs, each in standard deviations.

    Args:
        settings: see `FusedSettings`.
        parts: extractor, pre-processor and tiler, of all members.
        post_processor: see `Detector`.

    Attributes:
        scale: (members,) float32, sigma_m in the members' order. unseen: () int64, images it was measured on.
    """

    Settings = FusedSettings
    settings: FusedSettings
    statement = (
        "Fused adds what its members say of a patch, each in standard deviations over good images that it had not "
        "seen. Shown is the same place in good images that scored low."
    )
    scale: Tensor
    unseen: Tensor

    def __init__(self, settings: FusedSettings, parts: Parts, post_processor: nn.Module | None = None) -> None:
        super().__init__(settings, parts, post_processor)
        kinds = detectors()
        for name in settings.members:
            kind = kinds[name]
            own = {key: value for key, value in settings if key in kind.Settings.model_fields}
            member = kind(kind.Settings(**own), parts)
            member.share_parts_of(self)
            self.add_module(name, member)
        wanted = type(settings).model_fields.keys() - DetectorSettings.model_fields.keys()
        found = {key: value for member in self.members for key, value in member.settings if key in wanted}
        self.settings = self.settings.resolved(**found)
        self.register_buffer("scale", torch.zeros(len(settings.members)))
        self.register_buffer("unseen", torch.tensor(0))
        self._witnesses: list[Detector] = []
        self._kept: dict[int, Tensor] = {}  # number of an image -> its features (D, gh, gw)
        self._seen = self._watched = self._end = 0  # how many images; how many by witnesses; the number behind the last

    @property
    def members(self) -> list[Detector]:
        """In the order of the settings."""
        return [cast("Detector", self.get_submodule(name)) for name in self.settings.members]

    @property
    def width(self) -> int:
        """See `Detector.width`: those of all members."""
        return sum(member.width for member in self.members)

    @property
    def scattered(self) -> int:
        """See `Detector.scattered`: what each member can take."""
        return min(member.scattered for member in self.members)

    def _has_state(self) -> bool:
        return all(member.is_fitted for member in self.members)

    @property
    def steady(self) -> bool:
        """See `Detector.steady`."""
        return all(member.steady for member in self.members)

    def check_state(self) -> None:
        """See `Detector.check_state`."""
        for member in self.members:
            member.check_state()
        if not bool((self.scale > 0).all() & self.scale.isfinite().all()):
            raise ValueError(f"scale must be above 0 and finite. Got {self.scale.tolist()}.")
        if int(self.unseen) < 1:
            raise ValueError(f"unseen must be at least 1 image. Got {int(self.unseen)}.")

    def start(self) -> None:
        """See `Detector.start`."""
        super().start()
        self.unseen.zero_()
        self._begin(methodcaller("start"))

    def resume(self) -> None:
        """See `Detector.resume`: members learn from more images, and their scale is that of all that were unseen."""
        super().resume()
        self._begin(methodcaller("resume"))

    def twin(self) -> Self:
        """See `Detector.twin`."""
        twin = super().twin()
        twin._witnesses = [witness.twin() for witness in self._witnesses]
        twin._kept = dict(self._kept)
        return twin

    def observe(self, features: Tensor, images: Sequence[int] | None = None) -> None:
        """See `Detector.observe`."""
        numbers = numbered(images, len(features), self._end)
        ranks = [rank_for_witnesses(number) for number in numbers]
        shown = [i for i, rank in enumerate(ranks) if rank is not None]
        for member, witness, own in zip(self.members, self._witnesses, self._of_members(features), strict=True):
            member.observe(own, numbers)
            witness.observe(own[shown], [rank for rank in ranks if rank is not None])
        self._keep({number: features[i].clone() for i, number in enumerate(numbers) if ranks[i] is None})
        self._seen, self._watched = self._seen + len(numbers), self._watched + len(shown)
        self._end = numbers[-1] + 1 if len(numbers) else self._end

    def observed_state(self) -> dict[str, Tensor]:
        """See `Detector.observed_state`: those of members and witnesses, and what was kept."""
        images = sorted(self._kept)
        kept = [self._kept[number] for number in images]
        state = {
            "extent": torch.tensor([self.map_maker.count, self.width, self._seen, self._end]),
            "watched": torch.tensor(self._watched),
            "images": torch.tensor(images, dtype=torch.int64),
            "features": torch.stack(kept) if kept else torch.empty(0, self.width, *self.grid),
        }
        for prefix, part in self._by_prefix():
            state |= {f"{prefix}{key}": value for key, value in part.observed_state().items()}
        return state

    def merge_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Detector.merge_state`."""
        for prefix, part in self._by_prefix():
            part.merge_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self._keep(dict(zip(state["images"].tolist(), state["features"], strict=True)))
        *_, seen, end = state["extent"].tolist()
        self._seen, self._watched = self._seen + seen, self._watched + int(state["watched"])
        self._end = max(self._end, end)

    def finish(self) -> None:
        """Measures the scale of each member's scores by its witness, then finishes the members.

        Raises:
            DataError: if there are too few images for the witnesses to have seen some of them, and not others.
        """
        self._finish([member.finish for member in self.members])

    def finish_for(self, images: int) -> None:
        """See `Detector.finish_for`."""
        self._finish([partial(member.finish_for, images) for member in self.members])

    def _finish(self, members: Sequence[Callable[[], None]]) -> None:
        if self._kept and self._watched:
            self._measure()
        elif not bool(self.unseen):
            raise DataError(
                f"Fused measures its members on good images that they haven't seen, and needs at least 5. Got "
                f"{self._seen}."
            )
        self._witnesses, self._kept = [], {}
        for member, finish in zip(self.members, members, strict=True):
            member.progress = self.progress
            finish()
            member.progress = silent
        super().finish()

    def embed(self, layers: Sequence[Tensor]) -> Tensor:
        """Joins what the members make of the layers."""
        return torch.cat([member.embed(layers) for member in self.members], dim=1)

    def patch_scores(self, features: Tensor) -> Tensor:
        """Sum of the members' scores, each in its standard deviations."""
        parts = zip(self.members, self._of_members(features), strict=True)
        scores = torch.stack([member.patch_scores(part) for member, part in parts])  # (members, N, P)
        return (scores / self.scale[:, None, None]).sum(dim=0)

    def _of_members(self, features: Tensor) -> tuple[Tensor, ...]:
        """(N, D, gh, gw) -> what each member made of the layers."""
        parts: tuple[Tensor, ...] = features.split([member.width for member in self.members], dim=1)
        return parts

    def _begin(self, verb: Callable[[Detector], None]) -> None:
        self._witnesses, self._kept = [member.twin() for member in self.members], {}
        self._seen = self._watched = self._end = 0
        for detector in (*self.members, *self._witnesses):
            verb(detector)

    def _by_prefix(self) -> Iterator[tuple[str, Detector]]:
        """Members and witnesses, and what the names of their tensors begin with in an `observed_state`."""
        for name, member, witness in zip(self.settings.members, self.members, self._witnesses, strict=True):
            yield f"{name}.", member
            yield f"witness.{name}.", witness

    def _keep(self, features: Mapping[int, Tensor]) -> None:
        """Of all that were kept, the same ones in any order."""
        self._kept.update(features)
        for number in sorted(self._kept, key=lambda number: number * GOLDEN % 1)[KEPT_IMAGES:]:
            del self._kept[number]

    def _measure(self) -> None:
        features = torch.stack([self._kept[number] for number in sorted(self._kept)])  # (n, D, gh, gw)
        before, now = int(self.unseen), len(features)
        for i, (witness, own) in enumerate(zip(self._witnesses, self._of_members(features), strict=True)):
            witness.finish_for(now)
            scores = torch.cat([witness.patch_scores(image) for image in own.split(1)])  # (n, P)
            variance = (before * self.scale[i].double() ** 2 + now * scores.double().var(correction=0)) / (before + now)
            self.scale[i] = variance.sqrt().clamp(min=SMALLEST)
        self.unseen.fill_(before + now)


def rank_for_witnesses(number: int) -> int | None:
    """Which one an image is of those that witnesses see; None for the one of each `GROUP` that they don't."""
    group, place = divmod(number, GROUP)
    hidden = int(group * GOLDEN % 1 * GROUP)
    return None if place == hidden else group * (GROUP - 1) + place - (place > hidden)
