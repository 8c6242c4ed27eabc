"""Controllers as sinks: the variables of an OPC UA server, or the holding registers of a Modbus TCP server.

A controller takes verdicts one at a time, by a handshake that loses none:

1. while `ready` is 0, the station writes a verdict, and then sets `ready` to 1;
2. the controller reads it and sets `ready` to 0.

`verdict` is 1 for a normal part, 2 for an anomalous one, 3 for one that could not be inspected, which is never good.
`sequence` is the verdict's `id` modulo 2^31: one that was there before is the same verdict once more, as after a crash
of the station. `heartbeat` changes each second while the station is connected, and stays below 2^15.

Modbus, from the first register on: heartbeat, ready, verdict, sequence (two registers, the upper half first), and score
(the normalized score times 10,000; 65,535 where there is none).
"""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from blemish.extras import require
from blemish.serve.history import Verdict
from blemish.serve.sinks.settings import ModbusSection, OpcuaSection
from blemish.serve.tables import ANOMALOUS, FAILED, NORMAL

CODES = {NORMAL: 1, ANOMALOUS: 2, FAILED: 3}
NO_SCORE = 65_535
TIMEOUT = 3.0
"""Seconds within which a controller answers."""
VARIABLES = ("heartbeat", "ready", "verdict", "sequence", "score", "part", "product")
"""Of an OPC UA server; `score` is the normalized one, or -1."""


class Controller(Protocol):
    """How to speak to one kind of controller."""

    def connect(self) -> None:
        """Connects."""

    def ready(self) -> bool:
        """Whether the last verdict hasn't been read yet."""

    def write(self, verdict: Verdict) -> None:
        """Writes a verdict, and sets `ready`."""

    def beat(self, count: int) -> None:
        """Writes the heartbeat."""

    def disconnect(self) -> None:
        """Disconnects."""


class ControllerSink:
    """The handshake.

    Args:
        controller: to speak to.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._beats = 0

    def open(self) -> None:
        """Connects, and looks at `ready`."""
        self._controller.connect()
        self._controller.ready()

    def send(self, verdict: Verdict) -> bool:
        """Writes a verdict if the last one was read."""
        if self._controller.ready():
            return False
        self._controller.write(verdict)
        return True

    def flush(self) -> None:
        """Every answer was waited for."""

    def beat(self) -> None:
        """Counts up."""
        self._beats = (self._beats + 1) % 2**15
        self._controller.beat(self._beats)

    def close(self) -> None:
        """Disconnects."""
        self._controller.disconnect()


class Modbus:
    """Holding registers of a Modbus TCP server.

    Raises:
        MissingExtraError: without pymodbus.
    """

    def __init__(self, settings: ModbusSection) -> None:
        address = urlsplit(settings.modbus)
        client = require("pymodbus.client").ModbusTcpClient
        self._client = client(address.hostname, port=address.port or 502, timeout=TIMEOUT, retries=0)
        self._first, self._unit = settings.first_register, {"device_id": settings.unit}

    def connect(self) -> None:
        """Connects."""
        if not self._client.connect():
            raise ConnectionError("the controller doesn't answer")

    def ready(self) -> bool:
        """Reads `ready`."""
        return bool(_answered(self._client.read_holding_registers(self._first + 1, count=1, **self._unit)).registers[0])

    def write(self, verdict: Verdict) -> None:
        """Writes verdict, sequence and score, then `ready`."""
        sequence = verdict["id"] % 2**31
        score = NO_SCORE if verdict["score"] is None else round(10_000 * verdict["score"])
        values = [CODES[verdict["label"]], sequence >> 16, sequence & 0xFFFF, score]
        _answered(self._client.write_registers(self._first + 2, values, **self._unit))
        _answered(self._client.write_registers(self._first + 1, [1], **self._unit))

    def beat(self, count: int) -> None:
        """Writes the heartbeat."""
        _answered(self._client.write_registers(self._first, [count], **self._unit))

    def disconnect(self) -> None:
        """Disconnects."""
        self._client.close()


class Opcua:
    """Variables of an OPC UA server; each is written in the type that it has there.

    Raises:
        MissingExtraError: without asyncua.
    """

    def __init__(self, settings: OpcuaSection) -> None:
        self._settings = settings
        self._sync, self._ua = require("asyncua.sync"), require("asyncua.ua")
        self._client: Any = None
        self._nodes: dict[str, tuple[Any, Any]] = {}  # with their types

    def connect(self) -> None:
        """Connects, and looks for each variable."""
        address = urlsplit(self._settings.opcua)
        client = self._sync.Client(f"opc.tcp://{address.netloc.rpartition('@')[2]}{address.path}", timeout=TIMEOUT)
        if address.username:
            client.set_user(unquote(address.username))
            client.set_password(unquote(address.password or ""))
        self._client = client
        client.connect()
        for name in VARIABLES:
            text = self._settings.nodes.format(name)
            node = client.get_node(text)
            try:
                self._nodes[name] = node, node.read_data_type_as_variant_type()
            except self._ua.UaError as error:
                raise LookupError(f"it has no variable {text!r}") from error

    def ready(self) -> bool:
        """Reads `ready`."""
        return bool(self._nodes["ready"][0].read_value())

    def write(self, verdict: Verdict) -> None:
        """Writes all variables, then `ready`."""
        self._write("verdict", CODES[verdict["label"]])
        self._write("sequence", verdict["id"] % 2**31)
        self._write("score", -1.0 if verdict["score"] is None else verdict["score"])
        self._write("part", verdict["part"])
        self._write("product", verdict["product"])
        self._write("ready", 1)

    def beat(self, count: int) -> None:
        """Writes the heartbeat."""
        self._write("heartbeat", count)

    def disconnect(self) -> None:
        """Disconnects."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()

    def _write(self, name: str, value: Any) -> None:
        node, kind = self._nodes[name]
        types = self._ua.VariantType
        if kind == types.Boolean:
            value = bool(value)
        node.write_value(self._ua.DataValue(self._ua.Variant(value, kind)))


def _answered(answer: Any) -> Any:
    if answer.isError():
        raise OSError(f"the controller refused: {answer}")
    return answer
