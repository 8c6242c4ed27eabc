"""What sinks deliver to: real servers in this process, and a wire that can be cut between them and a station."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def stop(self) -> None:
        async def cancel() -> None:
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self.run(cancel())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Wire:
    """A port that leads to another one, as long as it isn't cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._serve()

    def cut(self) -> None:
        """Refuses everybody, and drops those that are there."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for end in self._pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._pairs.clear()

    def mend(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._serve()

    def _serve(self) -> None:
        self._thread = threading.Thread(target=self._accept, args=(self._listening,), daemon=True)
        self._thread.start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._pairs += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def web_server(answer: Callable[[dict[str, str], bytes], int]) -> Iterator[int]:
    """An HTTP server; `answer` gets headers and body of each POST and says the status."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(405)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(answer({name.lower(): value for name, value in self.headers.items()}, body))

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def mqtt_broker(heard: list[tuple[str, dict[str, Any]]]) -> Iterator[int]:
    """An MQTT broker, and a subscriber of all topics that adds to `heard`."""
    import paho.mqtt.client as mqtt
    from amqtt.broker import Broker
    from paho.mqtt.enums import CallbackAPIVersion

    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    port = free_port()
    loop = Loop()
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    listeners = {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}

    async def start() -> Broker:
        broker = Broker({"listeners": listeners, "plugins": plugins})
        await broker.start()
        return broker

    broker = loop.run(start())
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _, __, message: heard.append((message.topic, json.loads(message.payload)))
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe("#", qos=1)
    assert subscribed.wait(10)
    try:
        yield port
    finally:
        client.disconnect()
        client.loop_stop()
        loop.run(broker.shutdown())
        loop.stop()


@contextmanager
def modbus_controller(read: list[list[int]], asleep: threading.Event | None = None) -> Iterator[int]:
    """A controller: holding registers 10 to 15 by Modbus TCP, and a program that adds those of each verdict to `read`,
    unless it is asleep.
    """
    from pymodbus.client import ModbusTcpClient
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    port = free_port()
    loop = Loop()

    async def start() -> ModbusTcpServer:
        device = SimDevice(id=1, simdata=[SimData(10, count=6, values=0, datatype=DataType.REGISTERS)])
        server = ModbusTcpServer(device, address=("127.0.0.1", port))
        await server.serve_forever(background=True)
        return server

    server = loop.run(start())
    ended = threading.Event()

    def program() -> None:
        client = ModbusTcpClient("127.0.0.1", port=port)
        client.connect()
        while not ended.wait(0.005):
            registers = client.read_holding_registers(10, count=6).registers
            if registers[1] and not (asleep and asleep.is_set()):
                read.append(registers)
                client.write_register(11, 0)
        client.close()

    thread = threading.Thread(target=program)
    thread.start()
    try:
        yield port
    finally:
        ended.set()
        thread.join()
        loop.run(server.shutdown())
        loop.stop()


@contextmanager
def opcua_controller(read: list[dict[str, Any]]) -> Iterator[int]:
    """A controller with variables by OPC UA, and a program that adds those of each verdict to `read`."""
    from asyncua import Server, ua

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    port = free_port()
    loop = Loop()
    kinds = {
        "heartbeat": (0, ua.VariantType.Int16),
        "ready": (False, ua.VariantType.Boolean),
        "verdict": (0, ua.VariantType.Byte),
        "sequence": (0, ua.VariantType.Int32),
        "score": (0.0, ua.VariantType.Float),
        "part": ("", ua.VariantType.String),
        "product": ("", ua.VariantType.String),
    }

    async def start() -> tuple[Server, dict[str, Any]]:
        server = Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = await server.register_namespace("line")
        nodes = {}
        for name, (value, kind) in kinds.items():
            node = await server.nodes.objects.add_variable(f"ns={space};s=Inspection.{name}", name, value, kind)
            await node.set_writable()
            nodes[name] = node
        await server.start()
        return server, nodes

    async def program(nodes: dict[str, Any]) -> None:
        while True:
            if await nodes["ready"].read_value():
                read.append({name: await node.read_value() for name, node in nodes.items()})
                await nodes["ready"].write_value(False)
            await asyncio.sleep(0.005)

    server, nodes = loop.run(start())
    task = asyncio.run_coroutine_threadsafe(program(nodes), loop.loop)
    try:
        yield port
    finally:
        task.cancel()
        loop.run(server.stop())
        loop.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def network_camera(picture: bytes) -> Iterator[int]:
    """A camera that sends the same JPEG ten times a second, as MJPEG over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
            with suppress(OSError):
                while not ended.wait(0.1):
                    self.wfile.write(head + picture + b"\r\n")

        def log_message(self, *_: Any) -> None:
            pass

    ended = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
