"""HoliTom: static tokens merged over the windows that save the most, salient tokens kept elsewhere."""

from edgevtc.methods.spec import MethodSpec, Parameter

HOLITOM = MethodSpec(
    name="holitom",
    summary="merges static tokens over globally optimal windows, keeps the salient ones of the rest",
    paper="HoliTom (NeurIPS 2025), arXiv:2505.21334",
    needs=("frame_tokens", "saliency"),
    positions="contiguous",
    segments=True,
    parameters={
        "threshold": Parameter(0.8, "τ: a position is static where neighbours' cosine is above it", low=-1.0, high=1.0),
        "merge_weight": Parameter(0.6, "β: weight of a centre in its merged token", low=0.0, high=1.0),
        "merge": Parameter(
            "beta",
            "beta: β·centre + (1−β)·mean of the others; mean: plain mean of the cluster (NO_BETA)",
            choices=("beta", "mean"),
        ),
        "context_share": Parameter(
            0.0, "D: share of a frame's dynamic tokens that are merged cluster centres", low=0.0, high=1.0
        ),
        "neighbours": Parameter(7, "k of the density's nearest neighbours, the token itself included", low=1),
        "max_window": Parameter(1024, "most frames of a window", low=1),
        "min_static": Parameter(
            0,
            "fewest static tokens a window keeps, as far as the budget goes; the published code drops some",
            low=0,
            high=1,
        ),
        "order": Parameter(
            "raster",
            "raster: by frame and position; holitom: a window's static tokens before those of its frames",
            choices=("raster", "holitom"),
        ),
    },
    # The published scripts lower τ at r = 0.10; the second row ends that just above.
    by_retention={0.10: {"threshold": 0.65}, 0.11: {"threshold": 0.8}},
)
