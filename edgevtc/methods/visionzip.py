"""VisionZip: the attended tokens of each frame, and a few that gather the rest."""

from edgevtc.methods.spec import MethodSpec, Parameter

VISIONZIP = MethodSpec(
    name="visionzip",
    summary="keeps the salient tokens of each frame and merges the rest into evenly spaced ones",
    paper="VisionZip (CVPR 2025), arXiv:2412.04467",
    needs=("frame_tokens", "saliency", "keys"),
    positions="contiguous",
    parameters={
        "dominant_share": Parameter(
            54 / 64, "share of a frame's tokens that are salient ones, the rest are contextual", low=0.0, high=1.0
        ),
        "merge": Parameter(
            "sum",
            "sum: contextual token + mean of its members, as published; mean: plain mean of them all",
            choices=("sum", "mean"),
        ),
    },
)
