"""Check every container and codec that PyAV can write, and with --write put the table into docs/video-formats.md.

python scripts/video_formats.py [--write]
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from video_clips import Encoding, has_encoder, number_shown, write_clip

from edgevtc.files import write_whole
from edgevtc.video import FrameSampler, probe

DOCUMENT = Path(__file__).parents[1] / "docs" / "video-formats.md"
NUM_FRAMES = 140
X265_QUIET = {"x265-params": "log-level=error"}
OPEN_GOP = {"x264-params": "open-gop=1:bframes=3"}
INTRA_REFRESH = {"x264-params": "intra-refresh=1:bframes=0"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}


@dataclass(frozen=True)
class Format:
    """One row of the table: a clip that is written, read by seeking, and compared with decoding everything."""

    container: str
    codec: str
    note: str
    file_name: str
    encoding: Encoding


FORMATS = (
    Format("MP4", "H.264", "B-frames", "a.mp4", Encoding()),
    Format("MP4", "H.264", "open groups of pictures", "b.mp4", Encoding(options=OPEN_GOP)),
    Format("MP4", "H.264", "one keyframe in all", "c.mp4", Encoding(gop=10_000)),
    Format("MP4", "H.264", "fragmented", "d.mp4", Encoding(muxer=FRAGMENTED)),
    Format("MP4", "H.264", "index first", "e.mp4", Encoding(muxer={"movflags": "faststart"})),
    Format("MP4", "H.264", "10 bits", "f.mp4", Encoding(pixel_format="yuv420p10le")),
    Format("MP4", "H.265", "B-frames", "g.mp4", Encoding("libx265", X265_QUIET)),
    Format("MP4", "AV1", "", "h.mp4", Encoding("libsvtav1", {"preset": "12"})),
    Format("MP4", "MPEG-4", "", "i.mp4", Encoding("mpeg4")),
    Format("MOV", "H.264", "B-frames", "a.mov", Encoding()),
    Format("MOV", "ProRes", "", "b.mov", Encoding("prores_ks", pixel_format="yuv422p10le")),
    Format("MOV", "MJPEG", "", "c.mov", Encoding("mjpeg", pixel_format="yuvj420p")),
    Format("MKV", "H.264", "B-frames", "a.mkv", Encoding()),
    Format("MKV", "H.264", "no duration, no index", "b.mkv", Encoding(muxer={"live": "1"})),
    Format("MKV", "H.265", "B-frames", "c.mkv", Encoding("libx265", X265_QUIET)),
    Format("MKV", "FFV1", "lossless", "d.mkv", Encoding("ffv1")),
    Format("WebM", "VP8", "", "a.webm", Encoding("libvpx", {"deadline": "realtime", "cpu-used": "8"})),
    Format("WebM", "VP9", "", "b.webm", Encoding("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"})),
    Format("WebM", "AV1", "", "c.webm", Encoding("libsvtav1", {"preset": "12"})),
    Format("AVI", "H.264", "B-frames", "c.avi", Encoding()),
    Format("AVI", "MPEG-4", "", "a.avi", Encoding("mpeg4")),
    Format("AVI", "MPEG-4", "B-frames", "d.avi", Encoding("mpeg4", {"bf": "2"})),
    Format("AVI", "MJPEG", "", "b.avi", Encoding("mjpeg", pixel_format="yuvj420p")),
    Format("MPEG-TS", "H.264", "B-frames", "a.ts", Encoding()),
    Format("MPEG-TS", "H.264", "open groups of pictures", "b.ts", Encoding(options=OPEN_GOP)),
    Format("MPEG-TS", "H.264", "intra refresh", "c.ts", Encoding(options=INTRA_REFRESH)),
    Format("MPEG-TS", "H.265", "B-frames", "d.ts", Encoding("libx265", X265_QUIET)),
    Format("MPEG-TS", "MPEG-2", "B-frames", "e.ts", Encoding("mpeg2video", {"bf": "2"})),
    Format("MPEG-PS", "MPEG-2", "B-frames", "a.mpg", Encoding("mpeg2video", {"bf": "2"})),
    Format("MPEG-PS", "H.264", "B-frames", "b.mpg", Encoding()),
    Format("MPEG-PS", "H.265", "B-frames", "c.mpg", Encoding("libx265", X265_QUIET)),
    Format("MXF", "MPEG-2", "B-frames", "a.mxf", Encoding("mpeg2video", {"bf": "2"})),
    Format("MXF", "H.264", "B-frames", "b.mxf", Encoding()),
    Format("FLV", "H.264", "B-frames", "a.flv", Encoding()),
    Format("Ogg", "VP8", "", "a.ogv", Encoding("libvpx", {"deadline": "realtime", "cpu-used": "8"}, format="ogg")),
    Format("ASF", "WMV 2", "", "a.wmv", Encoding("wmv2")),
    Format("ASF", "H.264", "B-frames", "b.wmv", Encoding()),
    Format("GIF", "GIF", "", "a.gif", Encoding("gif", pixel_format="rgb8")),
    Format("APNG", "PNG", "animated", "a.png", Encoding("apng", pixel_format="rgb24", format="apng")),
    Format("IVF", "VP9", "", "a.ivf", Encoding("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"})),
    Format("raw", "MPEG-2", "no timestamps", "a.m2v", Encoding("mpeg2video", {"bf": "2"})),
    Format("raw", "H.264", "no timestamps", "a.h264", Encoding()),
    Format("raw", "H.265", "no timestamps", "a.hevc", Encoding("libx265", X265_QUIET)),
    Format("raw", "MJPEG", "no timestamps", "a.mjpeg", Encoding("mjpeg", pixel_format="yuvj420p")),
)


def decode_everything(path: Path) -> list[NDArray[np.uint8]]:
    """The reference: every frame of a file, in order, by nothing but PyAV."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def check_format(fmt: Format, folder: Path) -> str | None:
    """Write a format's clip, and compare sampling by seeking with decoding everything: None, or what is wrong."""
    # GIF counts in hundredths of a second, and raw MJPEG tells no rate.
    rate = 25 if fmt.file_name in ("a.gif", "a.mjpeg") else 30
    path = write_clip(folder / fmt.file_name, NUM_FRAMES, fmt.encoding, rate=rate)
    reference = decode_everything(path)
    info = probe(path)
    if info.num_frames != NUM_FRAMES or abs(info.fps - rate) > 0.01:
        return f"{info.num_frames} frames at {info.fps:.3f} a second are reported, {NUM_FRAMES} at {rate} were written"
    for wanted in (1, 3, 4, 9, 150):
        with FrameSampler(path, wanted) as sampler:
            for frame, index in zip(sampler, sampler.indices, strict=True):
                if not np.array_equal(frame.image, reference[index]):
                    return f"frame {index} of {wanted} sampled shows frame {number_shown(frame.image)}"
                if abs(frame.time_s - index / rate) > 0.002:
                    return f"frame {index} is said to be shown at {frame.time_s:.4f} s"
            if sampler.warnings:
                return sampler.warnings[0]
    return None


def table() -> str:
    """The table of formats, as Markdown."""
    rows = [f"| {fmt.container} | {fmt.codec} | {fmt.note or '–'} |" for fmt in FORMATS]
    return "\n".join(["| container | codec | of note |", "|---|---|---|", *rows])


def replace_section(name: str, text: str) -> None:
    """Put `text` between the document's markers of section `name`."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    document = DOCUMENT.read_text(encoding="utf-8")
    head, found, rest = document.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not (found and found_end):
        raise SystemExit(f"{DOCUMENT} has no section {name}")
    write_whole(DOCUMENT, f"{head}{begin}\n{text}\n{end}{tail}")


def main() -> None:
    """Check each format that can be written here, and write the table if all are right and it was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/video-formats.md")
    arguments = parser.parse_args()
    wrong = unchecked = 0
    with tempfile.TemporaryDirectory() as folder:
        for fmt in FORMATS:
            can = has_encoder(fmt.encoding.encoder)
            fault = check_format(fmt, Path(folder)) if can else "not checked: no encoder"
            wrong += bool(can and fault)
            unchecked += not can
            print(f"{fmt.container:8} {fmt.codec:7} {fmt.note:24} {fault or 'ok'}", flush=True)
    if wrong:
        raise SystemExit(f"{wrong} formats are wrong: the table is left as it was")
    if arguments.write and unchecked:
        raise SystemExit(f"{unchecked} formats were not checked: write the table with a PyAV that has their encoders")
    if arguments.write:
        replace_section("formats", table())


if __name__ == "__main__":
    main()
