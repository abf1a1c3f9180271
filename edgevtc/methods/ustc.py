"""USTC: one pool of attended, mutually dissimilar tokens for the whole clip; the rest clustered and refilled."""

from edgevtc.methods.spec import MethodSpec, Parameter

USTC = MethodSpec(
    name="ustc",
    summary="keeps attended tokens that resemble no kept one, over the whole clip, and clusters the others",
    paper="Unified Spatiotemporal Token Compression (CVPR 2026), arXiv:2603.21957",
    needs=("frame_tokens", "saliency"),
    positions="contiguous",
    parameters={
        "threshold": Parameter(
            0.7, "τ: a token enters the pool if its cosine with all of it is below", low=-1.0, high=1.0
        ),
        "cluster_share": Parameter(
            0.3, "share of the budget for cluster centres of what was not kept", low=0.0, high=1.0
        ),
        "neighbours": Parameter(7, "k of the density's nearest neighbours, the token itself included", low=1),
        "program": Parameter(
            "pruned",
            "pruned: the pool is drawn from the most attended candidates; "
            "parallel: from all tokens, with work that grows by the square of their number; "
            "loop: from all tokens one by one, in as many steps of the graph as the pool has tokens",
            choices=("pruned", "parallel", "loop"),
        ),
        "candidates": Parameter(
            2048, "most attended tokens that program `pruned` and the cluster centres are drawn from", low=1
        ),
    },
)
