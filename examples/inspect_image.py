"""The verdict on one image from an exported file, with onnxruntime, NumPy and Pillow alone.

python examples/inspect_image.py model.onnx part.png [SENSITIVITY]

The graph takes 8-bit RGB of any size and does everything else: resizing, scoring, the threshold, map and mask in the
pixels of the image. `blemish.runtime` adds what a service wants: 16-bit images, folders, regions, threads.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

OUTPUTS = ["raw_score", "pred_score", "pred_label", "anomaly_map", "pred_mask"]


def main(model: str, path: str, sensitivity: str | None = None) -> int:
    """Prints the verdict; returns 1 for an anomalous image, 0 for a normal one."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: it warns of inputs that have defaults
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["blemish"])
    image = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))  # (H, W, 3) uint8
    feed = {"image": image[None]}  # a batch of one
    if sensitivity is not None:  # an optional input: without it, the file's own
        feed["image_sensitivity"] = np.array(sensitivity, dtype=np.float32)
    outputs = session.run(OUTPUTS, feed)
    raw_score, score, anomalous, anomaly_map, mask = (array[0] for array in outputs)  # of the first image
    y, x = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    print("anomalous" if anomalous else "normal")
    print(f"score {score:.4f}")
    print(f"raw score {raw_score:.4f}, calibrated threshold {metadata['decision']['image_threshold']:.4f}")
    print(f"worst pixel x {x}, y {y}; {int(mask.sum())} of {mask.size} pixels marked")
    return int(anomalous)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
