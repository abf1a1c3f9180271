"""FrameFusion, in one step: similar tokens of neighbouring frames merge into runs, then the attended runs stay."""

from edgevtc.methods.spec import MethodSpec, Parameter

FRAMEFUSION = MethodSpec(
    name="framefusion",
    summary="merges each token into its like of the frame before, then prunes what got the least attention",
    paper="FrameFusion (ICCV 2025), arXiv:2501.01986",
    needs=("frame_tokens", "saliency"),
    positions="original",
    parameters={
        "threshold": Parameter(
            0.6, "S: tokens of one position in neighbouring frames merge from this cosine on", low=-1.0, high=1.0
        ),
    },
)
