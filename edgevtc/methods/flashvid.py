"""FlashVID: diverse attended tokens of every frame, trees of similar tokens over time for the rest, clustered."""

from edgevtc.methods.spec import MethodSpec, Parameter

FLASHVID = MethodSpec(
    name="flashvid",
    summary="keeps attended and diverse tokens of each frame, merges the others along trees over time and in space",
    paper="FlashVID (ICLR 2026), arXiv:2602.08024",
    needs=("frame_tokens", "saliency"),
    positions="contiguous",
    segments=True,
    parameters={
        "min_segments": Parameter(8, "the least similar neighbours are cut into at least so many segments", low=1),
        "segment_threshold": Parameter(
            0.9, "neighbouring frames whose mean tokens have a lower cosine are cut", low=-1.0, high=1.0
        ),
        "selected_share": Parameter(
            0.7, "α: share of the budget for selected tokens, the rest for merged ones", low=0.0, high=1.0
        ),
        "temporal_threshold": Parameter(
            0.8, "a token joins its most similar one of the frame before if their cosine is above", low=-1.0, high=1.0
        ),
        "selection": Parameter(
            "attn_div_v2",
            "attn_div: distances weighted by saliency; attn_div_v2: by its product with the likeness to the segment",
            choices=("attn_div", "attn_div_v2"),
        ),
        "neighbours": Parameter(7, "k of the density's nearest neighbours, the token itself included", low=1),
        "tree_divisor": Parameter(
            "members",
            "members: a tree merges into its mean; children: its sum is divided by 1 + the root's direct "
            "children, as in the published code",
            choices=("members", "children"),
        ),
    },
)
