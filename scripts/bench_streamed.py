"""What a bundle's decoder holds in memory on a CPU: loaded whole, whole without packed weights, and layer by layer.

Each way in a process of its own, on one thread: memory of its own, beside the libraries and pages of mapped files;
processor time; and whether the logits are those of the whole.

    python scripts/bench_streamed.py BUNDLE --rows 512
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from edgevtc.backends.onnxruntime import OnnxRuntimeBackend
from edgevtc.bundle import Bundle
from edgevtc.decoder.generator import Generator
from edgevtc.decoder.prompt import Rows
from edgevtc.exporter.streamed import StreamedBackend

WAYS = ("whole", "not packed", "by layers")


class Memory:
    """Context of a measurement: most memory of its own, and most pages of files, since it began; in bytes."""

    def __enter__(self) -> Memory:
        self.start, self.peak, self._ended = now(), (0, 0), False
        self._watch = threading.Thread(target=self._run)
        self._watch.start()
        return self

    def _run(self) -> None:
        while not self._ended:
            own, mapped = (value - before for value, before in zip(now(), self.start, strict=True))
            self.peak = max(self.peak[0], own), max(self.peak[1], mapped)
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._watch.join()


def now() -> tuple[int, int]:
    """Memory of this process's own, and pages of mapped files, in bytes."""
    status = Path("/proc/self/status").read_text()
    own, mapped = (int(re.search(rf"Rss{kind}:\s+(\d+)", status)[1]) for kind in ("Anon", "File"))  # type: ignore[index]
    return 1024 * own, 1024 * mapped


def measure(folder: str, rows: int, way: str) -> tuple[list[float], np.ndarray]:
    """Numbers of one way, and its logits: of a prompt, and of a token after it."""
    bundle = Bundle(folder)
    entry = bundle.manifest.decoder
    graph = bundle.file(next(iter(entry.graphs.values())))
    backend = StreamedBackend(threads=1) if way == "by layers" else OnnxRuntimeBackend(threads=1)
    embeddings = np.random.default_rng(0).normal(size=(rows + 1, entry.hidden_size)).astype(np.float32)
    times = [time.process_time()]
    with Memory() as memory:
        session = backend.load(bundle.path, graph, **({"prepack": False} if way == "not packed" else {}))
        generator = Generator(backend, session, entry, bundle.tensor(entry.embeddings))
        times.append(time.process_time())
        logits = []
        for length in (rows, rows + 1):
            prompt = Rows(list(range(length)), embeddings[:length], np.arange(length), length)
            logits.append(generator.prefill(prompt, 2)[0])
            times.append(time.process_time())
    return [*(size / 1e9 for size in memory.peak), *np.diff(times).tolist()], np.array(logits)


def main() -> None:
    """Measure the three ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--rows", type=int, default=512)
    args = parser.parse_args()
    print(f"| decoder | own, GB | mapped, GB | loading, s | {args.rows} rows, s | a token, s | logits differ by |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    whole = None
    for way in WAYS:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            numbers, logits = pool.submit(partial(measure, args.bundle, args.rows, way)).result()
        whole = logits if whole is None else whole
        apart = np.abs(logits - whole).max() / np.abs(whole).max()
        cells = [*(f"{number:.2f}" for number in numbers), f"{apart:.1%}" if apart else "nothing"]
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
