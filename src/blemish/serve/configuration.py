"""What a station is told, as typed values; a YAML file of `blemish serve --config` holds the same keys.

products:
  - {code: gear, model: gear.onnx}
sources:
  - {folder: inbox, product: gear}
  - {camera: "rtsp://line3/stream", every: 2}
sinks:
  - {webhook: "https://erp/parts"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import yaml
from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from blemish.catalog import CODE, models_of, read_catalog
from blemish.data.video import title_of
from blemish.errors import UsageError
from blemish.serve.section import Section, kind_by_key
from blemish.serve.sinks.settings import SinkSettings

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T", bound=Section)


class ProductSettings(Section):
    """A product and the model that judges it."""

    code: str = Field(pattern=CODE, description="Name by which sources say what a part is.")
    model: Path = Field(description="Model file: .onnx, .xml or .safetensors.")
    dataset: Path | None = Field(
        None, description="Good pictures that a new model learns from as well, beside those that people judged."
    )


class SourceSettings(Section):
    """What all sources have."""

    name: str = Field("", max_length=64, description="What the history calls this source. Default: its own name.")
    product: str | None = Field(None, pattern=CODE, description="Product of all its pictures.")

    @property
    def title(self) -> str:
        """What the history calls this source."""
        return self.name or self._own_name()[:64]

    @property
    def names_product(self) -> bool:
        """Whether its pictures say of which product they are."""
        return False

    def _own_name(self) -> str:
        raise NotImplementedError


class CameraSettings(SourceSettings):
    """A camera of this machine, or of the network, whose frames are parts."""

    camera: int | str = Field(description="Index, 0 being the first; or an address such as rtsp://USER:PASSWORD@HOST.")
    every: float = Field(
        1.0, ge=0, le=86_400, description="Seconds between two frames that are inspected; 0: each one that comes."
    )
    patience: float = Field(10.0, gt=0, le=600, description="Seconds that its first picture may take at the start.")

    trigger: bool = Field(
        False, description="Inspect a frame when POST /api/v1/sources/NAME/trigger asks, instead of by time."
    )

    @field_validator("camera")
    @classmethod
    def _is_camera(cls, value: int | str) -> int | str:
        if value < 0 if isinstance(value, int) else "://" not in value:
            raise ValueError("must be an index from 0 on, or an address such as rtsp://host/stream")
        return value

    def _own_name(self) -> str:
        return title_of(self.camera)


class VideoSettings(SourceSettings):
    """A video file, whose frames are parts; each is inspected once, also when the station starts again."""

    video: Path = Field(description="The file.")
    step: int = Field(1, ge=1, description="One of so many frames is inspected.")

    def _own_name(self) -> str:
        return self.video.name


class FolderSettings(SourceSettings):
    """A folder into which something puts pictures. Files stay where they are unless `take` is set."""

    folder: Path = Field(description="The watched folder, with its sub-folders.")
    pattern: str | None = Field(
        None,
        description="Regular expression over the path below the folder; its group 'product' gives the product, its "
        "group 'part' the part's name. Default: the file's name is the part's.",
    )
    take: bool = Field(False, description="Remove a picture from the folder once its verdict is in the history.")
    settle: float = Field(0.5, ge=0.1, le=60, description="Seconds without a change until a file counts as complete.")
    patience: float = Field(10.0, ge=1, le=3600, description="Seconds to wait for the rest of a file that is cut off.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groupindex
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
            if not groups.keys() & {"product", "part"}:
                raise ValueError("needs a group (?P<product>...) or (?P<part>...)")
        return value

    @property
    def names_product(self) -> bool:
        """Whether the pattern gives the product."""
        return self.pattern is not None and "product" in re.compile(self.pattern).groupindex

    def _own_name(self) -> str:
        return self.folder.name or str(self.folder)


AnySource: TypeAlias = Annotated[
    Annotated[FolderSettings, Tag("folder")]
    | Annotated[CameraSettings, Tag("camera")]
    | Annotated[VideoSettings, Tag("video")],
    Discriminator(
        kind_by_key("folder", "camera", "video"),
        custom_error_type="source",
        custom_error_message="must have one of the keys folder, camera, video",
    ),
]


class PictureSettings(Section):
    """Which pictures are kept. Verdicts are kept for ever."""

    keep_normal: float = Field(0.05, ge=0, le=1, description="Share of normal parts whose pictures are kept.")
    days: float | None = Field(None, gt=0, description="Days after which a picture is removed. Default: never.")
    quota_gb: float | None = Field(None, gt=0, description="Gigabytes of pictures; the oldest go. Default: no limit.")
    reserve_gb: float = Field(
        1.0, ge=0, description="Free gigabytes of the disk below which no pictures are stored; inspection goes on."
    )


class StationSettings(Section):
    """Everything `blemish serve` can be told."""

    data: Path = Field(Path("station"), description="Folder of the station: database, pictures.")
    database: str | None = Field(
        None, description="postgresql+psycopg://USER:PASSWORD@HOST/NAME. Default: an SQLite file in the data folder."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8420, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    insecure: bool = Field(False, description="Listen beyond this machine although nobody has an account.")
    cert: Path | None = Field(None, description="Certificate chain, PEM: the station then speaks HTTPS.")
    key: Path | None = Field(None, description="Its private key, PEM.")
    products: tuple[ProductSettings, ...] = Field((), description="Products and their models.")
    catalog: Path | None = Field(None, description="File of `blemish catalog`, whose products are served as well.")
    sources: tuple[AnySource, ...] = Field((), description="Where pictures come from, beside HTTP.")
    sinks: tuple[SinkSettings, ...] = Field((), description="Where verdicts go.")
    pictures: PictureSettings = Field(default_factory=PictureSettings, description="Which pictures are kept.")
    requests_per_second: float = Field(
        500, gt=0, description="Requests of one token, person or address; beyond, the answer is 429."
    )
    queue: int = Field(64, ge=1, le=100_000, description="Accepted parts that may wait for their verdict.")
    review_per_hour: int = Field(20, ge=0, description="Verdicts that operators are asked about per hour, at most.")
    review_near: float = Field(
        0.1, ge=0, le=1, description="They are asked about normalized scores less than this from 0.5."
    )
    batch_size: int = Field(8, ge=1, le=256, description="Pictures of equal size that are inspected together at most.")
    model_memory_mb: float = Field(
        2048, gt=0, description="Megabytes of model files held open; the one longest unused is closed first."
    )
    max_upload_mb: float = Field(64, gt=0, description="Largest uploaded picture, in megabytes.")
    max_pixels: int = Field(200_000_000, ge=1, description="Larger pictures can't be inspected.")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: give both, or neither")
        codes = [product.code for product in self.products]
        titles = [source.title for source in self.sources]
        sinks = [sink.title for sink in self.sinks]
        for name, values in (("product code", codes), ("source name", titles), ("sink name", sinks)):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise ValueError(f"each {name} may be given once. Twice: {', '.join(sorted(twice))}")
        for source in self.sources:
            if source.product is None and not source.names_product and len(codes) != 1:
                raise ValueError(
                    f"source {source.title!r} needs a product, or, as a folder, a pattern with a group 'product': that "
                    f"says which model judges its pictures"
                )
            if source.product is not None and source.product not in codes:
                raise ValueError(f"source {source.title!r} names the product {source.product!r}, which isn't listed")
        return self

    @property
    def database_url(self) -> str:
        """SQLAlchemy's address of the database."""
        return self.database or f"sqlite:///{(self.data / 'station.sqlite').resolve()}"


def station_settings(values: Mapping[str, Any], base: Path = Path()) -> StationSettings:
    """Settings from the keys of a configuration.

    Args:
        values: keys and values.
        base: folder that relative paths start from.

    Raises:
        UsageError: in one line, for the first thing that is wrong. ArtifactError: if the catalog is.
    """
    try:
        if isinstance(values.get("catalog"), (str, Path)) and isinstance(values.get("products", []), (list, tuple)):
            found = read_catalog(base / values["catalog"])
            data = Path(values.get("data", StationSettings.model_fields["data"].default))
            models = [{"code": code, "model": path} for code, path in models_of(found, data / "catalog").items()]
            values = {**values, "products": [*values.get("products", ()), *models]}
        settings = StationSettings(**values)
    except (ValidationError, TypeError) as error:
        if isinstance(error, TypeError):
            raise UsageError("Keys of a station's configuration must be text.") from error
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = str(first["msg"]).removeprefix("Value error, ")
        raise UsageError(f"{where + ': ' if where else ''}{message}. Got {first['input']!r:.200}.") from error
    for file in (settings.cert, settings.key):
        if file is not None and not (base / file).is_file():
            raise UsageError(f"There is no certificate or key at {base / file}.")
    return settings.model_copy(
        update={
            "cert": settings.cert and base / settings.cert,
            "key": settings.key and base / settings.key,
            "catalog": settings.catalog and base / settings.catalog,
            "data": base / settings.data,
            "products": tuple(_based(product, base) for product in settings.products),
            "sources": tuple(_based(source, base) for source in settings.sources),
            "sinks": tuple(_based(sink, base) for sink in settings.sinks),
        }
    )


def _based(section: T, base: Path) -> T:
    """A section with its paths below `base`."""
    paths = {name: base / value for name, value in section if isinstance(value, Path)}
    return section.model_copy(update=paths)


def read_station(path: Path, **flags: Any) -> StationSettings:
    """Settings from a YAML file; paths in it are relative to it. Flags that aren't None win.

    Raises:
        UsageError: if the file can't be read, or see `station_settings`.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"The configuration {path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"The configuration {path} must be a mapping of keys to values. Got {type(content).__name__}.")
    given = {name: value for name, value in flags.items() if value is not None}
    return station_settings({**content, **given}, path.parent)
