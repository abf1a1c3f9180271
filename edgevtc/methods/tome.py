"""ToMe: pairs of like tokens merged, round after round."""

from edgevtc.methods.spec import MethodSpec, Parameter

TOME = MethodSpec(
    name="tome",
    summary="merges the most similar pairs of tokens of each frame in rounds of bipartite matching",
    paper="ToMe (ICLR 2023), arXiv:2210.09461",
    needs=("frame_tokens", "keys"),
    parameters={
        "metric": Parameter(
            "keys",
            "what later rounds compare: the means of the merged tokens' keys, or the merged tokens themselves",
            choices=("keys", "tokens"),
        ),
        "spare_rounds": Parameter(1, "rounds beyond the fewest that can merge so many", low=0, high=24),
    },
)
