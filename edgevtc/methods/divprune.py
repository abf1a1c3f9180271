"""DivPrune: the most diverse subset of the tokens."""

from edgevtc.methods.spec import MethodSpec

DIVPRUNE = MethodSpec(
    name="divprune",
    summary="keeps tokens of each frame as far apart as can be (max–min diversity), blind to saliency",
    paper="DivPrune (CVPR 2025), arXiv:2503.02175",
)
