"""How far the margin of an answer may lie from itself where the cache held another part of the prompt.

Up to ONNX Runtime 1.23 one row and many are computed by different int8 kernels: 0.24 was seen there, 0.001 since.
"""

import onnxruntime

ONE_KERNEL = tuple(map(int, onnxruntime.__version__.split(".")[:2])) > (1, 23)
JITTER = 0.005 if ONE_KERNEL else 0.25
