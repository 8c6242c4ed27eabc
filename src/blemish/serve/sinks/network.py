"""Programs elsewhere as sinks: a web address, and an MQTT broker. Both get a verdict as the API shows it, as JSON."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import ssl
import time
from urllib.parse import unquote, urlsplit

import httpx
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from blemish._version import __version__
from blemish.serve.history import Verdict, shown
from blemish.serve.sinks.settings import MqttSection, WebhookSection

TIMEOUT = 5.0
"""Seconds within which a receiver answers."""


class WebhookSink:
    """Sends each verdict by POST; only an answer below 300 counts as delivered.

    With a secret it signs as the Standard Webhooks specification says: headers `webhook-id` (the part's uid),
    `webhook-timestamp`, and `webhook-signature`, "v1," and HMAC-SHA256 over `id.timestamp.body` as Base64.
    """

    def __init__(self, settings: WebhookSection) -> None:
        self.settings = settings
        self._client: httpx.Client | None = None
        secret = settings.secret.get_secret_value() if settings.secret else None
        self._secret = None if secret is None else base64.b64decode(secret.removeprefix("whsec_"))

    def open(self) -> None:
        """Looks whether anything answers there, whatever it says."""
        self._client = httpx.Client(timeout=TIMEOUT, headers={"User-Agent": f"blemish/{__version__}"})
        self._client.head(self.settings.webhook)

    def send(self, verdict: Verdict) -> bool:
        """Posts a verdict."""
        assert self._client is not None
        body = json.dumps(shown(verdict)).encode()
        headers = {"Content-Type": "application/json", **signed(self._secret, verdict["uid"], int(time.time()), body)}
        answer = self._client.post(self.settings.webhook, content=body, headers=headers)
        if not answer.is_success:
            raise OSError(f"it answered {answer.status_code} {answer.reason_phrase}".rstrip())
        return True

    def flush(self) -> None:
        """Every answer was waited for."""

    def beat(self) -> None:
        """Nobody looks."""

    def close(self) -> None:
        """Closes connections."""
        if self._client is not None:
            self._client.close()


class MqttSink:
    """Publishes with quality of service 1, and waits until the broker has each verdict."""

    def __init__(self, settings: MqttSection) -> None:
        self.settings = settings
        self._client: mqtt.Client | None = None

    def open(self) -> None:
        """Connects, and waits until the broker says yes."""
        address = urlsplit(self.settings.mqtt)
        client = self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if address.username:
            client.username_pw_set(unquote(address.username), unquote(address.password or ""))
        secure = address.scheme == "mqtts"
        if secure:
            client.tls_set_context(ssl.create_default_context())
        answer: queue.SimpleQueue[ReasonCode] = queue.SimpleQueue()
        client.on_connect = lambda _, __, ___, reason, ____: answer.put(reason)
        client.connect_timeout = TIMEOUT
        client.connect(address.hostname or "", address.port or (8883 if secure else 1883), keepalive=30)
        client.loop_start()
        try:
            reason = answer.get(timeout=TIMEOUT)
        except queue.Empty as error:
            raise ConnectionError("the broker doesn't answer") from error
        if reason.is_failure:
            raise ConnectionError(f"the broker said: {reason}")

    def send(self, verdict: Verdict) -> bool:
        """Publishes a verdict."""
        assert self._client is not None
        fields = {name: _level(verdict[name]) for name in ("product", "source", "label")}
        message = self._client.publish(self.settings.topic.format(**fields), json.dumps(shown(verdict)), qos=1)
        if message.rc == mqtt.MQTT_ERR_SUCCESS:
            message.wait_for_publish(TIMEOUT)
        if not message.is_published():
            raise ConnectionError("the broker didn't confirm a message")
        return True

    def flush(self) -> None:
        """Every confirmation was waited for."""

    def beat(self) -> None:
        """The connection's own pings tell whether it is alive."""
        assert self._client is not None
        if not self._client.is_connected():
            raise ConnectionError("the broker has gone")

    def close(self) -> None:
        """Disconnects."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()


def signed(secret: bytes | None, uid: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message."""
    headers = {"webhook-id": uid, "webhook-timestamp": str(timestamp)}
    if secret is not None:
        digest = hmac.new(secret, f"{uid}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _level(text: str) -> str:
    """A name as one level of a topic."""
    return "".join("-" if letter in "/#+\0" else letter for letter in text)
