"""The kinds of sinks: key of a section of the configuration -> what delivers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blemish.serve.pictures import Pictures
from blemish.serve.sinks.controllers import ControllerSink, Modbus, Opcua
from blemish.serve.sinks.files import CsvSink, FolderSink
from blemish.serve.sinks.network import MqttSink, WebhookSink
from blemish.serve.sinks.settings import SinkSection
from blemish.serve.sinks.worker import Sink

KINDS: dict[str, Callable[[Any, Pictures], Sink]] = {
    "mqtt": lambda settings, _: MqttSink(settings),
    "webhook": lambda settings, _: WebhookSink(settings),
    "folder": lambda settings, pictures: FolderSink(settings.folder, pictures),
    "csv": lambda settings, _: CsvSink(settings.csv),
    "opcua": lambda settings, _: ControllerSink(Opcua(settings)),
    "modbus": lambda settings, _: ControllerSink(Modbus(settings)),
}


def make_sink(settings: SinkSection, pictures: Pictures) -> Sink:
    """A sink that isn't connected yet.

    Raises:
        MissingExtraError: if it needs a package that isn't installed.
    """
    return KINDS[settings.kind](settings, pictures)
