"""InfoMerge: FastVID's skeleton with a static prior and information-driven segment budgets."""

from edgevtc.methods.spec import MethodSpec, Parameter

INFOMERGE = MethodSpec(
    name="infomerge",
    summary="segments, salient tokens and density-peak merging, with budgets by uniqueness and spectral entropy",
    paper="InfoMerge, arXiv:2606.02161",
    needs=("frame_tokens", "saliency", "frame_features"),
    positions="original",
    segments=True,
    parameters={
        "min_segments": Parameter(8, "c: the c−1 least similar neighbours are always cut", low=1),
        "segment_threshold": Parameter(0.9, "τ_seg: neighbours of a lower cosine are cut", low=-1.0, high=1.0),
        "context_share": Parameter(
            0.4, "d: share of the budget for merged anchors, the rest for salient tokens", low=0.0, high=1.0
        ),
        "static_share": Parameter(0.10, "ρ: share of a frame's positions taken for static", low=0.0, high=1.0),
        "penalty": Parameter(12.0, "λ: drop of a repeated static position, in standard deviations", low=0.0),
        "uniqueness_weight": Parameter(0.9, "α: weight of a segment's uniqueness in its budget"),
        "richness_weight": Parameter(0.1, "β: weight of a segment's spectral entropy in its budget"),
        "temperature": Parameter(1.2, "τ: slope of the sigmoid that turns merit into budget", low=0.0),
        "anchor_interval": Parameter(
            4, "p: every p-th frame of a segment, from its last, holds anchors", low=1, high=4096
        ),
        "neighbours": Parameter(4, "k of the density's nearest neighbours, the token itself included", low=1),
        "merge_weight": Parameter(0.6, "μ: weight of the anchor in a merged token", low=0.0, high=1.0),
        "merge_weighting": Parameter(
            "adaptive",
            "adaptive: max(μ, 1/(n+1)) for n merged tokens, as in FastVID's code; fixed: μ, as in eq. 34",
            choices=("adaptive", "fixed"),
        ),
        "richness": Parameter(
            "spectral",
            "spectral: entropy from 16 directions and a flat tail; renyi2: its collision entropy; "
            "sketch64: entropy of a random projection",
            choices=("spectral", "renyi2", "sketch64"),
        ),
        "dtm_features": Parameter(
            "replaced",
            "what anchors are chosen and tokens merged from: tokens after static replacement, or the original ones",
            choices=("replaced", "original"),
        ),
        "dtm_scope": Parameter(
            "segment",
            "segment: each token merges once, into its nearest anchor of the segment; "
            "anchor_frame: once per anchor frame, as in FastVID's code",
            choices=("segment", "anchor_frame"),
        ),
        "dtm_members": Parameter(
            "others", "whether an anchor is among the tokens averaged into it", choices=("others", "all")
        ),
        "penalty_deviation": Parameter(
            "unbiased", "divide the saliency's variance by N−1 or by N", choices=("unbiased", "population")
        ),
    },
    # Table 7.
    by_retention={
        0.05: {
            "temperature": 2.0,
            "static_share": 0.05,
            "penalty": 12.0,
            "uniqueness_weight": 0.9,
            "richness_weight": 0.1,
        },
        0.10: {
            "temperature": 1.2,
            "static_share": 0.10,
            "penalty": 12.0,
            "uniqueness_weight": 0.9,
            "richness_weight": 0.1,
        },
        0.15: {
            "temperature": 1.2,
            "static_share": 0.09,
            "penalty": 12.0,
            "uniqueness_weight": 0.9,
            "richness_weight": 0.1,
        },
    },
)
