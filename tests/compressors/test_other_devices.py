"""Every method's program as a GPU runs it: all on one device, captured whole, and decided in float32."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgevtc.compressors import Compressor, create
from edgevtc.methods import builtin_methods

pytestmark = pytest.mark.export

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from bench_cuda import program_on, tensors_of  # noqa: E402

METHODS = sorted(builtin_methods())
FRAMES, TOKENS, WIDTH = 6, 9, 16


def program(method: str) -> Compressor:
    total = FRAMES * TOKENS
    return create(method, FRAMES, TOKENS, total if method == "none" else total // 3).eval()


def inputs(compressor: Compressor, make_clip, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    clip = make_clip((FRAMES, TOKENS, WIDTH), "scenes")
    return tensors_of({name: clip[name] for name in compressor.spec.needs}, dtype)


@pytest.mark.parametrize("method", METHODS)
def test_all_of_a_program_is_where_its_inputs_are(method, make_clip):
    """A tensor left on the host fails here as on a GPU, and so does waiting for a value to branch on."""
    compressor = program(method)
    found = compressor.to("meta")(*(value.to("meta") for value in inputs(compressor, make_clip, torch.bfloat16)))
    assert all(output.is_meta for output in found) and found[0].shape == (compressor.budget, WIDTH)


@pytest.mark.parametrize("method", METHODS)
def test_a_traced_program_copies_nothing_from_the_host(method, make_clip):
    """Which would end the capture of a CUDA graph."""
    compressor = program(method)
    given = inputs(compressor, make_clip, torch.bfloat16)
    moved = program_on(compressor, given, "meta")
    tensors = [node.meta["val"] for node in moved.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    assert tensors and all(value.is_meta for value in [*tensors, *moved.buffers(), *moved.parameters()])
    assert moved(*(value.to("meta") for value in given))[0].shape == (compressor.budget, WIDTH)


@pytest.mark.parametrize("method", METHODS)
def test_tokens_in_bfloat16_decide_as_the_same_values_in_float32(method, make_clip):
    compressor = program(method)
    narrow = inputs(compressor, make_clip, torch.bfloat16)
    wide = tuple(value.float() for value in narrow)
    tokens, *decisions = compressor(*narrow)
    expected, *others = compressor(*wide)
    assert tokens.dtype == torch.bfloat16
    assert all(torch.equal(a, b) for a, b in zip(decisions, others, strict=True))
    # Eight bits of mantissa, rounded once as a product and once as a sum.
    torch.testing.assert_close(tokens.float(), expected, rtol=2**-7, atol=2**-7 * float(expected.abs().max()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_benchmark_says_so():
    command = [sys.executable, str(SCRIPTS / "bench_cuda.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "finds no CUDA device" in done.stderr
