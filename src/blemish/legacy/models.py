"""The detectors, under the older library's address."""

from blemish.engine.module import Padim as Padim
from blemish.engine.module import Patchcore as Patchcore
