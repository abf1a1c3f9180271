"""DyCoke: frames in groups of four, the later ones reduced to what differs from the earlier ones."""

from edgevtc.methods.spec import MethodSpec, Parameter

DYCOKE = MethodSpec(
    name="dycoke",
    summary="keeps one frame of four, and of the others the tokens least like it (temporal token merging)",
    paper="DyCoke (CVPR 2025), arXiv:2411.15024",
    positions="contiguous",
    parameters={
        "pruning_rate": Parameter(
            0.7,
            "k: a pruned frame has ⌊(1−k)·N⌋ tokens to a whole one's N, more where the budget allows",
            low=0.0,
            high=1.0,
        ),
        "last_frames": Parameter(
            "published",
            "published: of a clip's last four frames the third stays whole, and an odd last frame comes last; "
            "regular: they are as all others",
            choices=("published", "regular"),
        ),
    },
)
