"""Time compressors on a GPU: milliseconds, kernels and memory of a call replayed from a CUDA graph.

    python scripts/bench_cuda.py --methods holitom infomerge --sizes 32x196x3584 64x169x3584

Two programs of a method are captured once and replayed: the one in torch, with `frame_tokens` in bfloat16 and decisions
in float32, and the ONNX graph, all float32, in ONNX Runtime's CUDA provider without TF32. What a caller waits counts,
until the GPU is done. Beside it stands how many of the kept positions the torch program keeps on the CPU as well, given
the same values. Memory is by how much what the GPU has in use grows, libraries and inputs included; each program has a
process of its own. ONNX Runtime needs `pip install 'onnxruntime-gpu[cuda,cudnn]'` in place of onnxruntime.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from bench_compressors import make_clip
from torch import Tensor
from torch.autograd import DeviceType
from torch.export.passes import move_to_device_pass
from torch.profiler import ProfilerActivity, profile

from edgevtc.backends.onnxruntime import PROVIDERS, OnnxRuntimeBackend
from edgevtc.compressors import Compressor, create
from edgevtc.errors import EdgeVTCError
from edgevtc.exporter.vision import export_compressor
from edgevtc.methods import budget_for, builtin_methods

#: Calls before a graph is captured: libraries choose kernels and take workspaces in the first.
WARM_UP = 3


class Replay(NamedTuple):
    """A captured call: what starts it again and waits for its end, and what gives the positions [B] it kept.

    What it reads and writes lies at the addresses it was captured with, and has to be held as long as it is replayed.
    """

    run: Callable[[], None]
    positions: Callable[[], np.ndarray]
    held: object


def features_of(compressor: Compressor, size: str) -> dict[str, np.ndarray]:
    """What the method needs of a synthetic clip, float32."""
    clip = make_clip(*map(int, size.split("x")))
    return {name: clip[name] for name in compressor.spec.needs}


def tensors_of(features: dict[str, np.ndarray], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The features, `frame_tokens` in the dtype and the others in float32, as `export_compressor` has it."""
    tensors = {name: torch.from_numpy(value) for name, value in features.items()}
    return tuple(value.to(dtype) if name == "frame_tokens" else value for name, value in tensors.items())


def program_on(compressor: Compressor, inputs: tuple[Tensor, ...], device: str) -> Callable[..., tuple[Tensor, ...]]:
    """The program, traced with inputs on the CPU and moved to a device with all its constants.

    Untraced it makes them of numbers on the host in each call, and while a CUDA graph is captured nothing may be copied
    from there.
    """
    return move_to_device_pass(torch.export.export(compressor, inputs, strict=False), device).module()


def captured_torch(compressor: Compressor, inputs: tuple[Tensor, ...], compiled: bool) -> Replay:
    """The program in torch, given inputs on the CPU."""
    program = program_on(compressor, inputs, "cuda")
    if compiled:
        program = torch.compile(program, fullgraph=True)
    inputs = tuple(value.cuda() for value in inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            program(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, check_input_liveness=True):
        outputs = program(*inputs)
    positions = outputs[compressor.outputs.index("positions")]

    def run() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return Replay(run, lambda: positions.cpu().numpy(), (program, inputs, outputs))


def captured_onnxruntime(compressor: Compressor, features: dict[str, np.ndarray], folder: Path) -> Replay:
    """The ONNX graph; ONNX Runtime captures it in its first runs and refuses if a node is not on the GPU."""
    file = folder / "graph.onnx"
    ir.save(export_compressor(compressor, {name: value.shape for name, value in features.items()}), file)
    provider = PROVIDERS["cuda"]
    graph_options = {"enable_cuda_graph": "1", "arena_extend_strategy": "kSameAsRequested"}
    PROVIDERS["cuda"] = provider._replace(options={**provider.options, **graph_options})
    backend = OnnxRuntimeBackend("cuda")
    session = backend.load(folder, file)
    for name, value in features.items():
        session.bind(name, backend.tensor(value))
    for output in session.outputs.values():
        session.bind(output.name, backend.empty(output.shape, output.dtype))
    for _ in range(WARM_UP):
        session.run()
    return Replay(session.run, lambda: session.output("positions").numpy(), session)


def milliseconds(run: Callable[[], None], repeats: int) -> float:
    """Median of what a caller waits."""
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(taken)


def kernels(run: Callable[[], None]) -> int:
    """Kernels of one call, copies and fills not counted."""
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        run()
    events = [event for event in record.events() if event.device_type == DeviceType.CUDA]
    return sum(not event.name.startswith(("Memcpy", "Memset")) for event in events)


def used_bytes() -> int:
    """Memory of the GPU in use, by whomever."""
    free, total = torch.cuda.mem_get_info()
    return total - free


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["holitom", "infomerge"], choices=sorted(builtin_methods()))
    parser.add_argument("--sizes", nargs="+", default=["32x196x896", "32x196x3584", "64x169x3584"], help="TxNxD")
    parser.add_argument("--retention-ratio", type=float, default=0.15)
    parser.add_argument("--runtimes", nargs="+", default=["torch", "onnxruntime"], choices=["torch", "onnxruntime"])
    parser.add_argument("--compile", action="store_true", help="let torch.compile fuse kernels")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    if args.row:
        print(row(args.methods[0], args.sizes[0], args.runtimes[0], args))
        return
    if not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} finds no CUDA device: run this where nvidia-smi lists one")
    libraries = [f"torch {torch.__version__}"]
    if "onnxruntime" in args.runtimes:
        try:
            libraries.append(OnnxRuntimeBackend("cuda").runtime)
        except EdgeVTCError as error:
            raise SystemExit(f"{error}, or give --runtimes torch") from None
    print(f"{torch.cuda.get_device_name()}, {', '.join(libraries)}\n")
    print("| method | size | program | kernels | ms | MB | kept as on the CPU |\n|---|---|---|---:|---:|---:|---:|")
    failed = False
    for method, size, runtime in itertools.product(args.methods, args.sizes, args.runtimes):
        words = ["--row", "--methods", method, "--sizes", size, "--runtimes", runtime]
        done = subprocess.run([sys.executable, *sys.argv, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            print(f"| `{method}` | {size} | {runtime} | {reason} | | | |", flush=True)
        else:
            print(next(line for line in done.stdout.splitlines() if line.startswith("|")), flush=True)
        failed |= done.returncode != 0
    if failed:
        raise SystemExit("not every program could be measured")


def row(method: str, size: str, runtime: str, args: argparse.Namespace) -> str:
    """Measure a program; its row of the table."""
    frames, tokens, _ = map(int, size.split("x"))
    budget = frames * tokens if method == "none" else budget_for(args.retention_ratio, frames, tokens)
    compressor = create(method, frames, tokens, budget, retention_ratio=args.retention_ratio).eval()
    features = features_of(compressor, size)
    inputs = tensors_of(features, torch.bfloat16 if runtime == "torch" else torch.float32)
    expected = compressor(*inputs)[compressor.outputs.index("positions")].numpy()
    before = used_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if runtime == "torch":
            name = "torch, bfloat16, compiled" if args.compile else "torch, bfloat16"
            replay = captured_torch(compressor, inputs, args.compile)
        else:
            name = "onnxruntime, float32"
            replay = captured_onnxruntime(compressor, features, Path(folder))
        memory = used_bytes() - before
        # Before anything is counted: what counts kernels slows down what follows.
        taken = milliseconds(replay.run, args.repeats)
        kept = np.isin(replay.positions(), expected).sum()
        cells = (
            f"`{method}`",
            size,
            name,
            kernels(replay.run),
            f"{taken:.2f}",
            round(memory / 1e6),
            f"{kept} of {budget}",
        )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
