"""VidCom²: budgets by how unlike the video a frame is, tokens by how unlike the video and the frame they are."""

from edgevtc.methods.spec import MethodSpec, Parameter

VIDCOM2 = MethodSpec(
    name="vidcom2",
    summary="gives distinctive frames more tokens and keeps the tokens least like the video and their frame",
    paper="VidCom² (EMNLP 2025), arXiv:2505.14454",
    positions="contiguous",
    parameters={
        "temperature": Parameter(0.01, "τ of the softmax over frames that sets their shares", low=1e-4),
        "channel_share": Parameter(
            0.5, "share of the channels that are looked at, those of lowest variance", low=0.0, high=1.0
        ),
    },
)
