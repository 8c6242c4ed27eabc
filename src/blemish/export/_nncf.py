"""NNCF in a process of its own: `python -m blemish.export._nncf MODEL.xml IMAGES.npz TARGET.xml PREFIX`.

Importing NNCF replaces the class of all loggers, and running it prints, and reports to its makers unless an environment
variable says otherwise. None of this may happen to the program that exports a model.
"""

from __future__ import annotations

import sys


def main(source: str, samples: str, target: str, prefix: str) -> None:
    """Quantizes the nodes whose names start with `prefix`, with ranges taken from the (N, H, W, 3) arrays."""
    import nncf
    import numpy as np
    import openvino
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    stacks = np.load(samples)
    quantized = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset(stacks.files, lambda name: stacks[name]),
        subset_size=len(stacks.files),
        ignored_scope=nncf.IgnoredScope(patterns=[f"(?!{prefix}).*"]),
        advanced_parameters=AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.ENABLE,  # seven bits for weights in every layer
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,  # means would cut off what is rare
        ),
    )
    openvino.save_model(quantized, target, compress_to_fp16=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
