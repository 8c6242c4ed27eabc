"""Frames of files that OpenCV wrote, and of a camera in the network: a server that sends MJPEG."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from blemish.data import video
from blemish.data.video import Camera, frames, title_of
from blemish.errors import DataError

RED = (10, 20, 200)  # as OpenCV orders it


def frame(number: int) -> Any:
    picture = np.full((48, 64, 3), RED, np.uint8)
    picture[:, :32] = 20 * number
    return picture


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v")])
def test_every_frame_of_a_video_in_order(suffix: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
    for number in range(12):
        writer.write(frame(number))
    writer.release()
    found = list(frames(path))
    assert [shot.name for shot in found] == [f"{path}#{number}" for number in range(12)]
    assert found[3].place == Path(f"clip{suffix}#3")
    for number, shot in enumerate(found):
        assert shot.image.shape == (48, 64, 3)
        assert abs(float(shot.image[:, 4:28].mean()) - 20 * number) < 6
    red, _, blue = found[0].image[:, 40:].mean(axis=(0, 1))
    assert red > 150 > 60 > blue


@pytest.mark.parametrize(("content", "reason"), [(None, "no such video"), (b"text, no video", "no frame of this")])
def test_no_video(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        list(frames(path))


class Network:
    """A camera with an address, that sends `count` frames to whoever connects, and then hangs up."""

    def __init__(self) -> None:
        self.count, self.pause, self.sent, self.visits = 1000, 0.01, 0, 0
        network = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                network.visits += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for _ in range(network.count):
                    data = cv2.imencode(".jpg", frame(network.sent % 12))[1].tobytes()
                    try:
                        self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                        self.wfile.write(b"Content-Length: %d\r\n\r\n%b\r\n" % (len(data), data))
                    except OSError:
                        return
                    network.sent += 1
                    time.sleep(network.pause)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://user:secret@127.0.0.1:{self.server.server_port}/line/1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.count = 0
    made.server.shutdown()
    made.server.server_close()


def test_while_nobody_asks_the_oldest_frames_are_dropped(network: Network) -> None:
    with Camera(network.url) as camera:
        first = next(iter(camera))
        while camera.taken < 20:
            time.sleep(0.01)
        taken = camera.taken
        newest = [next(iter(camera)) for _ in range(2)]
        assert camera.dropped >= taken - 3  # one was asked for, two are kept
        assert first.name < newest[0].name < newest[1].name  # by time
        assert "secret" not in first.name
        assert first.name.startswith("127.0.0.1-line-1#20")
    assert camera.next() is None
    assert not [thread for thread in threading.enumerate() if thread.name == camera.title]


def test_a_connection_that_ends_is_made_again(network: Network) -> None:
    network.count, network.pause = 5, 0.1
    with Camera(network.url) as camera:
        assert [camera.next() is not None for _ in range(8)] == [True] * 8  # more than one visit gives
    assert network.visits == 2


def test_a_camera_that_is_gone_ends_with_an_error(network: Network) -> None:
    network.count = 5
    with Camera(network.url, patience=0.5) as camera:
        network.count = 0
        with pytest.raises(DataError, match=r"has given no frame for 0\.5 s\. Frames so far: \d"):
            list(camera)


def test_a_camera_that_comes_later(network: Network) -> None:
    port = network.server.server_port
    network.server.shutdown()
    network.server.server_close()
    with pytest.raises(DataError, match=r"127\.0\.0\.1-line-1 can't be opened\. Check the index or address"):
        Camera(network.url)
    with Camera(network.url, patience=None) as camera:
        assert camera.next(0.05) is None
        assert camera.trouble == "127.0.0.1-line-1 can't be opened."
        server = ThreadingHTTPServer(("127.0.0.1", port), network.server.RequestHandlerClass)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert camera.next(30) is not None
        assert camera.trouble is None
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("source", "title"),
    [(0, "camera0"), ("rtsp://u:p@10.0.0.5:554/../st?x=1", "10.0.0.5-..-st"), ("udp://@:1234", "camera")],
)
def test_titles_are_names_of_files(source: int | str, title: str) -> None:
    assert title_of(source) == title


def test_no_camera_at_an_index() -> None:
    with pytest.raises(DataError, match=r"camera77 can't be opened"):
        Camera(77)


def test_libraries_below_keep_quiet(tmp_path: Path) -> None:
    """In a process of its own: FFmpeg is told once."""
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    code = f"from blemish.data.video import frames\nlist(frames({str(tmp_path / 'clip.mp4')!r}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    first, *_, last = ended.stderr.splitlines()
    assert (first[:9], "Is it whole, and a video?" in last) == ("Traceback", True), ended.stderr


def test_suffixes_are_no_images() -> None:
    from blemish.files import IMAGE_SUFFIXES

    assert not set(video.VIDEO_SUFFIXES) & set(IMAGE_SUFFIXES)
