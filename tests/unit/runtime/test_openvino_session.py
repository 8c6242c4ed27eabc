"""What OpenVINO does to the program around it, and must not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blemish import runtime
from blemish.artifact import load
from blemish.data.image_io import read_image
from blemish.export import exporting
from exported import content_of, traced

PROGRAM = """
import gc, os, signal, sys, threading
import numpy as np
from blemish import runtime

signal.signal(signal.SIGTERM, lambda *_: print("handled"))
sessions = [runtime.load(sys.argv[1])]
sessions[0](np.zeros((96, 128, 3), np.uint8))
ending = threading.Thread(target=lambda: (sessions.clear(), gc.collect()))
ending.start()
ending.join()
os.kill(os.getpid(), signal.SIGTERM)
print("goes on")
"""


def test_a_session_may_end_in_another_thread(model_file: Path, tmp_path: Path) -> None:
    """OpenVINO's plug-in took the first thread's stack for signals away with it, and the next signal was the last."""
    exporting.write(traced(model_file), tmp_path / "m.xml", content_of(load(model_file)))
    ran = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path / "m.xml"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.split("\n")[:2]) == (0, ["handled", "goes on"]), ran.stderr


def test_what_it_shares_with_the_runtime_stays_as_it_is(model_file: Path, tiles: Path, tmp_path: Path) -> None:
    """Images are handed over without a copy, and the next run writes where the last one did."""
    exporting.write(traced(model_file), tmp_path / "m.xml", content_of(load(model_file)))
    session = runtime.load(tmp_path / "m.xml", threads=1)
    good, other = (read_image(path) for path in sorted((tiles / "train" / "good").iterdir())[:2])
    images = np.stack([good, other])
    before = images.copy()
    first = session(images[0])[0]
    kept = [array.copy() for array in (first.anomaly_map, first.mask)]
    second = session(images[1])[0]
    assert np.array_equal(images, before)
    assert np.array_equal(first.anomaly_map, kept[0])
    assert np.array_equal(first.mask, kept[1])
    assert not np.array_equal(first.anomaly_map, second.anomaly_map)


SIZES = """
import sys
from pathlib import Path
import numpy as np
from blemish import runtime

session, peaks = runtime.load(sys.argv[1], threads=1), []
for count in range(200):
    session(np.full((64 + count, 60 + count % 3, 3), count, np.uint8))
    # `ru_maxrss` would begin with the peak of whoever started this process.
    peaks.append(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10)
print(peaks[-1] - peaks[99])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_does_not_grow_with_sizes(model_file: Path, tmp_path: Path) -> None:
    """Left to itself, OpenVINO keeps more than a megabyte for each; `benchmarks/many_sizes.py` goes on to 1,000."""
    exporting.write(traced(model_file), tmp_path / "m.xml", content_of(load(model_file)))
    ran = subprocess.run([sys.executable, "-c", SIZES, tmp_path / "m.xml"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 60
