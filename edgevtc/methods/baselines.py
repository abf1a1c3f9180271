"""The floors every method is compared with."""

from edgevtc.methods.spec import MethodSpec

NONE = MethodSpec(name="none", summary="keeps every token; the reference for accuracy and time")
UNIFORM = MethodSpec(name="uniform", summary="keeps tokens at even steps over time and space, blind to the video")
