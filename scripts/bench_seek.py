"""Measure what T frames of an hour of 1080p video cost, against decoding everything, and put it into the document.

python scripts/bench_seek.py [--minutes 60] [--num-frames 8 16 32 64] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from video_clips import Encoding, numbered_picture, repeat_clip, write_clip
from video_formats import replace_section

PIECE_S, RATE, HEIGHT, WIDTH = 10, 30, 1080, 1920

#: Run in a process of its own, so that its peak memory is its own.
SAMPLE = """
import json, sys, time
import av, numpy, PIL.Image
from edgevtc.video import FrameSampler
def peak():  # not getrusage's: that begins with the parent's
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
before, start, cpu = peak(), time.perf_counter(), time.process_time()
with FrameSampler(sys.argv[1], int(sys.argv[2]), size=(384, 384)) as sampler:
    opened = time.perf_counter()
    frames = sum(1 for _ in sampler)
total_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
print(json.dumps({"open_s": opened - start, "total_s": total_s, "cpu_s": cpu_s, "peak_mib": peak() - before}))
"""


def pictures() -> Iterator[NDArray[np.uint8]]:
    """A texture that moves behind the frame's number."""
    texture = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 4, 3), np.uint8)
    texture = texture.repeat(8, axis=0).repeat(8, axis=1)
    for number in range(PIECE_S * RATE):
        picture = texture[:, number * 4 : number * 4 + WIDTH].copy()
        picture[HEIGHT // 2 :] = numbered_picture(number, HEIGHT, WIDTH)[HEIGHT // 2 :]
        yield picture


def sample(path: Path, num_frames: int) -> dict[str, float]:
    """Time and memory of sampling in a fresh process."""
    result = subprocess.run(
        [sys.executable, "-c", SAMPLE, str(path), str(num_frames)], capture_output=True, check=True, text=True
    )
    return json.loads(result.stdout)


def decode_seconds(path: Path) -> float:
    """Processor seconds that decoding all of a file takes, with nothing else done."""
    start = time.process_time()
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for _ in container.decode(video=0):
            pass
    return time.process_time() - start


def main() -> None:
    """Write the clips, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--num-frames", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--write", action="store_true", help="put the table into docs/video-formats.md")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        encoding = Encoding(options={"preset": "veryfast", "crf": "28"}, gop=2 * RATE)
        piece = write_clip(
            Path(folder) / "piece.mp4",
            PIECE_S * RATE,
            encoding,
            rate=RATE,
            size=(HEIGHT, WIDTH),
            pictures=pictures(),
        )
        all_s = decode_seconds(piece) * arguments.minutes * 60 / PIECE_S
        rows = []
        for suffix, minutes in ((".mp4", 1), (".mp4", arguments.minutes), (".mkv", arguments.minutes)):
            path = repeat_clip(piece, Path(folder) / f"{minutes}{suffix}", minutes * 60 // PIECE_S)
            for num_frames in arguments.num_frames:
                got = sample(path, num_frames)
                rows.append(
                    f"| {minutes} min {suffix[1:].upper()} | {num_frames} | {got['open_s']:.2f} | {got['total_s']:.2f} "
                    f"| {got['cpu_s']:.2f} | {got['peak_mib']:.0f} |"
                )
                print(rows[-1], flush=True)
            path.unlink()

    text = "\n".join(
        [
            "| 1080p H.264, a keyframe every 2 s | T | to open, s | in all, s | processor, s | peak memory, MiB |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Decoding all {arguments.minutes} minutes would take {all_s:.0f} s of processor time "
            f"(from {PIECE_S} s decoded). {os.cpu_count()} cores of {platform.machine()}, shared with other work; "
            f"PyAV {av.__version__}; `python scripts/bench_seek.py --minutes {arguments.minutes} "
            f"--num-frames {' '.join(map(str, arguments.num_frames))} --write`.",
        ]
    )
    print(text.rpartition("\n")[2])
    if arguments.write:
        replace_section("seek", text)


if __name__ == "__main__":
    main()
