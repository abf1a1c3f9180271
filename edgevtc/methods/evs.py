"""EVS: the first frame, and what changes after it."""

from edgevtc.methods.spec import MethodSpec

EVS = MethodSpec(
    name="evs",
    summary="keeps the first frame and the tokens that differ most from the frame before",
    paper="Efficient Video Sampling (2025), arXiv:2510.14624",
)
