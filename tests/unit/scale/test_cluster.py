"""Clusters that aren't there, what goes wrong on the way to one, and that nothing is told to anybody."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from finding import Reports, run

from blemish._version import __version__
from blemish.errors import MissingExtraError, UsageError
from blemish.scale import cluster as module
from blemish.scale.cluster import ask_nodes, cluster, require_reachable


def test_a_cluster_that_is_not_there_is_said_at_once(model_file: Path, pictures: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(
        UsageError, match=rf"There is no Ray cluster at 127.0.0.1:{port}: .*refused.* `ray start --head"
    ):
        require_reachable(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 10
    for address in ("ray://head:10001x", "head", ":6379"):
        with pytest.raises(UsageError, match=r"--address must be HOST:PORT of the head of a Ray cluster, or auto. Got"):
            require_reachable(address)


def test_without_ray_the_pip_command_is_said(model_file: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        with pytest.raises(MissingExtraError, match=r'needs ray, .* pip install "blemish\[ray\]"'), cluster():
            pass


def test_one_that_is_connected_is_used_and_kept(ray: Any) -> None:
    with cluster() as same:
        assert same is ray
    assert ray.is_initialized()
    other = pytest.raises(UsageError, match=r"is connected to the cluster at \S+ already. Got 'other:6379'")
    with other, cluster("other:6379"):
        pass


def test_machines_of_other_versions_are_refused_with_both(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(ask_nodes(ray, abs, -3).values()) == [3]
    monkeypatch.setattr(module, "versions", lambda: {"blemish": "9.9"})
    with pytest.raises(UsageError, match=rf"worker at \S+ has blemish {__version__}, and this process has blemish 9.9"):
        ask_nodes(ray, abs, -3)


def test_nothing_is_reported(ray: Any, reports: Reports) -> None:
    raylet = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
    environment = Path(f"/proc/{raylet}/environ").read_bytes().split(b"\0")
    assert b"RAY_USAGE_STATS_ENABLED=0" in environment
    assert f"RAY_USAGE_STATS_REPORT_URL={reports.environment['RAY_USAGE_STATS_REPORT_URL']}".encode() in environment
    assert reports.received == []


def test_options_of_ray_need_it(model_file: Path, tiles: Path) -> None:
    for verb in ("fit", "fit-all"):
        assert "--address is for --ray" in run(verb, tiles, "-o", "x.safetensors", "--address", "auto", code=2)[1]
    assert "--address is for --ray" in run("bench", tiles, "--address", "auto", code=2)[1]
