"""FastVID: dynamic segments, salient tokens of every frame, the rest merged around density peaks."""

from edgevtc.methods.spec import MethodSpec, Parameter

FASTVID = MethodSpec(
    name="fastvid",
    summary="cuts the clip into segments, keeps salient tokens, merges the others around density peaks",
    paper="FastVID (NeurIPS 2025), arXiv:2503.11187",
    needs=("frame_tokens", "saliency", "frame_features"),
    positions="original",
    segments=True,
    parameters={
        "min_segments": Parameter(8, "c: the c−1 least similar neighbours are always cut", low=1),
        "segment_threshold": Parameter(0.9, "τ: neighbours of a lower cosine are cut", low=-1.0, high=1.0),
        "context_share": Parameter(
            0.4, "d: share of the budget for merged anchors, the rest for salient tokens", low=0.0, high=1.0
        ),
        "anchor_interval": Parameter(
            4, "p: every p-th frame of a segment, from its last, holds anchors", low=1, high=4096
        ),
        "neighbours": Parameter(4, "k of the density's nearest neighbours, the token itself included", low=1),
        "merge_weight": Parameter(
            0.6, "β: an anchor that absorbs n tokens has weight max(β, 1/(n+1)) in its merged token", low=0.0, high=1.0
        ),
        "members": Parameter(
            "all",
            "all: an anchor counts among the tokens it absorbs (LLaVA-OneVision's code); "
            "others: it does not (LLaVA-Video's)",
            choices=("all", "others"),
        ),
    },
)
