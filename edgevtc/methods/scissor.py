"""LLaVA-Scissor: connected components of similar tokens, first in each frame, then over the clip."""

from edgevtc.methods.spec import MethodSpec, Parameter

SCISSOR = MethodSpec(
    name="scissor",
    summary="merges connected components of similar tokens in each frame and then over the clip",
    paper="LLaVA-Scissor (2025), arXiv:2506.21862",
    positions="contiguous",
    parameters={
        "threshold": Parameter(0.9, "τ: tokens are connected from a cosine above it", low=-1.0, high=1.0),
        "candidates": Parameter(
            2048, "largest components of single frames that are connected over the clip; others stay apart", low=1
        ),
    },
)
