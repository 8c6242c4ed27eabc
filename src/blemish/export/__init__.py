"""One file that gives the verdict that was trained, in a runtime without torch.

graph       the module that becomes the graph: the detector's own forward, its thresholds and sensitivities as inputs
onnx        that module -> an ONNX model
openvino    an ONNX model -> OpenVINO's
parity      eager torch against every installed runtime, over images
exporting   all of it, ending with the file, or with the reason why there is none
"""
