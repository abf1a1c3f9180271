"""The floors every method is compared with."""

from edgevtc.methods.spec import MethodSpec, Parameter

NONE = MethodSpec(name="none", summary="keeps every token; the reference for accuracy and time")
UNIFORM = MethodSpec(name="uniform", summary="keeps tokens at even steps over time and space, blind to the video")
FRAMES = MethodSpec(name="frames", summary="keeps whole frames at even steps over time, blind to the video")
RANDOM = MethodSpec(
    name="random",
    summary="keeps tokens drawn at random, the same for every video",
    parameters={"seed": Parameter(0, "which of the random selections", low=0)},
)
