"""What a station is told of its sinks. The first key of a section says what it is.

sinks:
  - {mqtt: "mqtt://broker", labels: [anomalous, failed]}
  - {csv: verdicts.csv}
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, SecretStr, Tag, field_validator

from blemish.catalog import CODE
from blemish.serve.section import Section, kind_by_key

Label: TypeAlias = Literal["normal", "anomalous", "failed"]
Code: TypeAlias = Annotated[str, Field(pattern=CODE)]


class SinkSection(Section):
    """What all sinks have: a name, and which verdicts they get."""

    kind: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]] = ()
    name: str = Field(
        "",
        max_length=64,
        description="What pages call it, and by which it is known again. Default: its kind and place.",
    )
    labels: tuple[Label, ...] = Field(("normal", "anomalous", "failed"), description="Verdicts that it gets.")
    products: tuple[Code, ...] = Field((), description="Products whose verdicts it gets. Default: of all.")
    sources: tuple[str, ...] = Field((), description="Sources whose verdicts it gets. Default: from all.")

    @property
    def place(self) -> str:
        """Where it is, without passwords."""
        target = getattr(self, self.kind)
        if isinstance(target, Path):
            return str(target)
        address = urlsplit(target)
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"

    @property
    def title(self) -> str:
        """What pages and metrics call it."""
        target = getattr(self, self.kind)
        return self.name or f"{self.kind} {target.name if isinstance(target, Path) else self.place}"[:64]


class NetworkSection(SinkSection):
    """A sink with an address."""

    @field_validator("mqtt", "webhook", "opcua", "modbus", check_fields=False)
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            address = urlsplit(value)
            whole = address.scheme in cls.schemes and bool(address.hostname) and address.port != 0
        except ValueError:
            whole = False
        if not whole:
            raise ValueError(f"must be an address like {cls.schemes[0]}://host")
        return value


class MqttSection(NetworkSection):
    """Verdicts as JSON to an MQTT broker, quality of service 1."""

    kind = "mqtt"
    schemes = ("mqtt", "mqtts")
    mqtt: str = Field(description="mqtt://USER:PASSWORD@HOST:PORT, or mqtts:// for TLS.")
    topic: str = Field(
        "blemish/{product}", pattern=r"^[^#+]+$", description="Topic; {product}, {source} and {label} are filled in."
    )

    @field_validator("topic")
    @classmethod
    def _can_be_filled(cls, value: str) -> str:
        try:
            value.format(product="", source="", label="")
        except (LookupError, ValueError) as error:
            raise ValueError("may hold {product}, {source} and {label} alone") from error
        return value


class WebhookSection(NetworkSection):
    """Verdicts as JSON by POST."""

    kind = "webhook"
    schemes = ("https", "http")
    webhook: str = Field(description="Address to send to.")
    secret: SecretStr | None = Field(
        None, description="whsec_ and at least 24 bytes as Base64; signs each message as Standard Webhooks says."
    )

    @field_validator("secret")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else value.get_secret_value()
        try:
            size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
        except (binascii.Error, ValueError):
            size = 0
        if value is not None and (size < 24 or not text.startswith("whsec_")):
            raise ValueError("must be whsec_ and at least 24 bytes as Base64: echo whsec_$(openssl rand -base64 32)")
        return value


class FolderSinkSection(SinkSection):
    """Pictures sorted into the sub-folders OK, NG, unsure and failed."""

    kind = "folder"
    folder: Path = Field(description="Where to put them; it is made.")


class CsvSection(SinkSection):
    """A row for each verdict."""

    kind = "csv"
    csv: Path = Field(description="File that rows are added to.")


class OpcuaSection(NetworkSection):
    """Variables of an OPC UA server, such as a controller."""

    kind = "opcua"
    schemes = ("opc.tcp",)
    opcua: str = Field(description="opc.tcp://USER:PASSWORD@HOST:PORT")
    nodes: str = Field(
        description="Node ids with {} for the variable's name: 'ns=2;s=Inspection.{}', or 'ns=3;s=\"DB1\".\"{}\"'."
    )

    @field_validator("nodes")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError("must hold {} once, where the variable's name belongs")
        return value


class ModbusSection(NetworkSection):
    """Holding registers of a Modbus TCP server, such as a controller."""

    kind = "modbus"
    schemes = ("modbus",)
    modbus: str = Field(description="modbus://HOST:PORT")
    first_register: int = Field(0, ge=0, le=65_529, description="Address of the first of the six.")
    unit: int = Field(1, ge=0, le=255, description="Unit identifier.")


SinkSettings: TypeAlias = Annotated[
    Annotated[MqttSection, Tag("mqtt")]
    | Annotated[WebhookSection, Tag("webhook")]
    | Annotated[FolderSinkSection, Tag("folder")]
    | Annotated[CsvSection, Tag("csv")]
    | Annotated[OpcuaSection, Tag("opcua")]
    | Annotated[ModbusSection, Tag("modbus")],
    Discriminator(
        kind_by_key("mqtt", "webhook", "folder", "csv", "opcua", "modbus"),
        custom_error_type="sink",
        custom_error_message="must have one of the keys mqtt, webhook, folder, csv, opcua, modbus",
    ),
]
