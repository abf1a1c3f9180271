"""Video in: files, pictures and folders of pictures to uint8 frames of the size a model wants."""

from __future__ import annotations

from edgevtc.video.pictures import RESAMPLE_FILTERS
from edgevtc.video.sampler import Frame, FrameSampler, iter_frames, probe
from edgevtc.video.sampling import VideoInfo, sample_indices, sample_timestamps

__all__ = [
    "RESAMPLE_FILTERS",
    "Frame",
    "FrameSampler",
    "VideoInfo",
    "iter_frames",
    "probe",
    "sample_indices",
    "sample_timestamps",
]
