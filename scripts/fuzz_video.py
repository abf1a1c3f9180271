"""Feed damaged files to the video reader: each must be read or refused in one line, in bounded time and memory.

python scripts/fuzz_video.py [--files 2000] [--seed 0] [--timeout-s 20] [--write]

Every file is a valid clip that was cut, overwritten, shuffled, spliced, or made to claim more than it holds, by a
seeded generator. A worker process reads it; one that dies, hangs, raises anything but VideoError, or gives another
number of frames than asked for is a finding.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import av
import numpy as np
from PIL import Image
from video_boxes import box, edit_boxes
from video_clips import Encoding, has_encoder, numbered_picture, write_clip
from video_formats import FORMATS, replace_section

from edgevtc.errors import VideoError
from edgevtc.video import FrameSampler

NUM_FRAMES = 4
MEMORY_GIB = 4
DAMAGES = ("cut", "head cut", "bits", "bytes", "numbers", "header", "zeros", "shuffle", "splice")
#: Where a file has boxes or units, they are chosen so much more often than other damage.
CLAIMS_WEIGHT = 4
#: Boxes of an MP4 → where the count of their entries stands.
COUNT_AT = {b"stsz": 8, b"stts": 4, b"ctts": 4, b"stsc": 4, b"stco": 4, b"stss": 4, b"elst": 4, b"trun": 4}
#: The smallest units of H.264, H.265 and MPEG.
UNITS = (b"\0\0\1\x09\xf0", b"\0\0\1\x46\1\x50", b"\0\0\1\x06\x80", b"\0\0\1\x0c", b"\0\0\1\x41", b"\0\0\1\xb3")
MAX_ADDED = 200_000
MAX_EDITS = 2000


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    verdict: str  # "read", "read with warnings", "refused", or a finding
    detail: str
    seconds: float
    peak_mib: float


def read_one(path: str) -> tuple[str, str]:
    """Read a file as the runner would."""
    try:
        with FrameSampler(path, NUM_FRAMES, size=(32, 32)) as sampler:
            frames = list(sampler)
            warnings = sampler.warnings
    except VideoError as error:
        return ("refused", str(error)) if "\n" not in str(error) else ("FINDING", f"more than one line: {error!r}")
    except BaseException as error:
        return "FINDING", f"{type(error).__name__}: {error}"
    if len(frames) != NUM_FRAMES:
        return "FINDING", f"{len(frames)} frames instead of {NUM_FRAMES}"
    return ("read with warnings", warnings[0]) if warnings else ("read", "")


def work(pipe: Connection) -> None:
    """A worker: read the files whose names come, one after the other."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_GIB * 2**30, MEMORY_GIB * 2**30))
    while True:
        verdict, detail = read_one(pipe.recv())
        peak_kib = Path("/proc/self/status").read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]
        pipe.send((verdict, detail, int(peak_kib) / 1024))


class Worker:
    """A process that reads files, and is replaced when it dies or hangs."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()

    def read(self, path: Path) -> Outcome:
        """Have a file read."""
        start = time.perf_counter()
        self._pipe.send(str(path))
        verdict, detail, peak_mib = "FINDING", f"still reading after {self.timeout_s:g} s", 0.0
        try:
            if self._pipe.poll(self.timeout_s):
                verdict, detail, peak_mib = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            detail = f"the process died with code {self._process.exitcode}"
        if verdict == "FINDING":
            self.stop()
            self._start()
        return Outcome(verdict, detail, time.perf_counter() - start, peak_mib)


def write_seeds(folder: Path) -> list[Path]:
    """Small clips of all formats that can be written, and two pictures."""
    paths = []
    for fmt in FORMATS:
        if has_encoder(fmt.encoding.encoder):
            rate = 25 if fmt.codec == "GIF" else 30
            path = folder / f"seed{len(paths)}{Path(fmt.file_name).suffix}"
            paths.append(write_clip(path, 40, fmt.encoding, rate=rate, size=(48, 64)))
    # The index in front, so that cuts leave something to read.
    paths.append(write_clip(folder / "front.mp4", 40, Encoding(muxer={"movflags": "faststart"}), size=(48, 64)))
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        paths.append(folder / f"picture{suffix}")
        Image.fromarray(numbered_picture(7, 48, 64)).save(paths[-1])
    return paths


def mutate(data: bytes, other: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One kind of damage, chosen by the generator: its name and the damaged file."""
    claims = ["boxes"] if data[4:8] == b"ftyp" else ["units"] if data[:3] in (b"\0\0\1", b"\0\0\0") else []
    kind = str(rng.choice([*DAMAGES, *claims * CLAIMS_WEIGHT]))
    out = bytearray(data)
    size = len(out)
    if kind == "cut":
        del out[int(rng.integers(1, size)) :]
    elif kind == "head cut":
        del out[: int(rng.integers(1, size))]
    elif kind == "bits":
        for at in rng.integers(0, size, max(1, size // 2000)):
            out[at] ^= 1 << int(rng.integers(8))
    elif kind == "bytes":
        for at in rng.integers(0, size, int(rng.integers(1, 60))):
            out[at] = int(rng.integers(256))
    elif kind == "numbers":  # lengths and counts at their extremes
        for at in rng.integers(0, max(1, size - 4), int(rng.integers(1, 12))):
            extremes = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\1\0\0"]
            out[at : at + 4] = extremes[int(rng.integers(len(extremes)))]
    elif kind == "header":  # most of what a demuxer believes stands in the first and the last bytes
        for _ in range(int(rng.integers(1, 12))):
            at = int(rng.integers(0, min(1500, size))) * int(rng.choice([1, -1]))
            out[at if abs(at) < size else 0] = int(rng.integers(256))
    elif kind == "boxes":
        out = bytearray(claim_boxes(data, rng))
    elif kind == "units":
        for at in rng.integers(0, size, int(rng.integers(1, 4))):
            out[at:at] = UNITS[int(rng.integers(len(UNITS)))] * int(rng.integers(1, MAX_ADDED))
    elif kind == "zeros":
        at, length = int(rng.integers(0, size)), int(rng.integers(1, max(2, size // 3)))
        out[at : at + length] = bytes(min(length, size - at))
    elif kind == "shuffle":
        cuts = np.sort(rng.integers(0, size, 6)).tolist()
        parts = [out[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
        out = bytearray(b"".join(bytes(parts[i]) for i in rng.permutation(len(parts))))
    else:
        at = int(rng.integers(0, size))
        out = out[:at] + bytearray(other[int(rng.integers(0, len(other))) :])
    return kind, bytes(out)


def claim_boxes(data: bytes, rng: np.random.Generator) -> bytes:
    """An MP4 whose boxes claim what they do not hold, have no end, or are many."""

    def edit(kind: bytes, content: bytes) -> bytes:
        if kind in COUNT_AT and rng.random() < 0.3:
            at, count = COUNT_AT[kind], int(rng.choice([2**32 - 1, 2**31 - 1, 10**8, 10**6, 10**4]))
            content = content[:at] + struct.pack(">I", count) + content[at + 4 :]
            if kind == b"stsz":  # one size for all: nothing else has to be there
                content = content[:4] + struct.pack(">I", int(rng.integers(1, 1000))) + content[8:]
            elif kind == b"elst":
                content = content[:8] + content[8:20] * int(rng.integers(1, MAX_EDITS))
        whole = box(kind, content)
        if rng.random() < 0.02:
            whole = bytes(4) + whole[4:]
        if rng.random() < 0.02:
            whole = box(b"free") * int(rng.integers(1, MAX_ADDED)) + whole
        return whole

    return edit_boxes(data, edit)


def mutations(seeds: list[Path], count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """(kind, suffix, bytes) of every damaged file; the same for the same seed and build of libav."""
    contents = [path.read_bytes() for path in seeds]
    rng = np.random.default_rng(seed)
    for number in range(count):
        which = number % len(seeds)
        kind, data = mutate(contents[which], contents[int(rng.integers(len(seeds)))], rng)
        yield kind, seeds[which].suffix, data


def summary(outcomes: list[tuple[str, Outcome]], arguments: argparse.Namespace) -> str:
    """The table of verdicts by kind of damage, as Markdown."""
    verdicts = ["read", "read with warnings", "refused", "FINDING"]
    counts = Counter((kind, outcome.verdict) for kind, outcome in outcomes)
    lines = [
        "| damage | files | read | read, with warnings | refused | crashed, hung or wrong |",
        "|---|---|---|---|---|---|",
    ]
    for kind in [*sorted({kind for kind, _ in outcomes}), "all"]:
        row = [sum(n for (k, v), n in counts.items() if v == verdict and kind in (k, "all")) for verdict in verdicts]
        lines.append(f"| {kind} | {sum(row)} | {' | '.join(map(str, row))} |")
    seconds = sorted(outcome.seconds for _, outcome in outcomes)
    return "\n".join(
        [
            *lines,
            "",
            f"Time a file: {1000 * seconds[len(seconds) // 2]:.0f} ms in the median, {seconds[-1]:.1f} s at most. "
            f"Peak memory of a worker: {max(outcome.peak_mib for _, outcome in outcomes):.0f} MiB. "
            f"PyAV {av.__version__}; `python scripts/fuzz_video.py --files {arguments.files} --seed {arguments.seed} "
            "--write`.",
        ]
    )


def main() -> None:
    """Fuzz, print each finding and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout-s", type=float, default=20.0)
    parser.add_argument("--keep", type=Path, help="folder that files with findings are copied to")
    parser.add_argument("--write", action="store_true", help="put the table into docs/video-formats.md")
    arguments = parser.parse_args()

    outcomes: list[tuple[str, Outcome]] = []
    worker = Worker(arguments.timeout_s)
    with tempfile.TemporaryDirectory() as folder:
        seeds = write_seeds(Path(folder))
        for number, (kind, suffix, data) in enumerate(mutations(seeds, arguments.files, arguments.seed)):
            path = Path(folder) / f"damaged{suffix}"
            path.write_bytes(data)
            outcome = worker.read(path)
            outcomes.append((kind, outcome))
            if outcome.verdict == "FINDING" or outcome.seconds > 5:
                print(f"{number} {kind} {suffix}: {outcome.detail} ({outcome.seconds:.1f} s)", flush=True)
                if arguments.keep:
                    (arguments.keep / f"{number}{suffix}").write_bytes(data)
    worker.stop()
    text = summary(outcomes, arguments)
    print(text)
    if arguments.write:
        replace_section("fuzzing", text)


if __name__ == "__main__":
    main()
