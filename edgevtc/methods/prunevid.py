"""PruneVid: windows of similar frames, static positions merged over each, every group of tokens clustered."""

from edgevtc.methods.spec import MethodSpec, Parameter

PRUNEVID = MethodSpec(
    name="prunevid",
    summary="clusters the frames into windows, merges static tokens over each, clusters all tokens in space",
    paper="PruneVid (ACL Findings 2025), arXiv:2412.16117",
    positions="original",
    segments=True,
    parameters={
        "temporal_ratio": Parameter(0.25, "clusters of frames for each frame of the clip", low=0.0, high=1.0),
        "threshold": Parameter(
            0.8,
            "τ: a position is static if the mean cosine of a window's frames is above",
            low=-1.0,
            high=1.0,
        ),
        "cluster_ratio": Parameter(
            0.5, "β: clusters for each token of a large group, against all tokens of a small one", low=0.01, high=1.0
        ),
        "copied_group": Parameter(14, "most tokens of a group that is small", low=0),
        "neighbours": Parameter(7, "k of the density's nearest neighbours, the token itself included", low=1),
    },
)
