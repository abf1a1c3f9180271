"""Every method's program as a GPU runs it: all on one device, captured whole, and decided in float32."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgevtc.compressors import Compressor, create
from edgevtc.methods import builtin_methods

pytestmark = pytest.mark.export

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from bench_cuda import program_on, tensors_of  # noqa: E402

METHODS = sorted(builtin_methods())
#: More channels than InfoMerge has directions, else it needs no probe.
FRAMES, TOKENS, WIDTH = 6, 9, 24


class OneDevice(TorchDispatchMode):
    """Refuses an operator on tensors of two devices, a number on the host aside; of any other than one, where given."""

    def __init__(self, only: str | None = None) -> None:
        super().__init__()
        self.allowed = {only} - {None}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        operands = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        devices = {value.device.type for value in operands if value.dim()}
        assert len(devices | self.allowed) < 2, f"{func} of tensors on {devices}"
        return func(*args, **(kwargs or {}))


def program(method: str) -> Compressor:
    total = FRAMES * TOKENS
    return create(method, FRAMES, TOKENS, total if method == "none" else total // 3).eval()


def inputs(compressor: Compressor, make_clip, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    clip = make_clip((FRAMES, TOKENS, WIDTH), "scenes")
    return tensors_of({name: clip[name] for name in compressor.spec.needs}, dtype)


@pytest.mark.parametrize("method", METHODS)
def test_a_program_runs_where_its_inputs_are_and_waits_for_no_value(method, make_clip):
    compressor = program(method).to("meta")
    with OneDevice():
        found = compressor(*(value.to("meta") for value in inputs(compressor, make_clip, torch.bfloat16)))
    assert all(output.is_meta for output in found) and found[0].shape == (compressor.budget, WIDTH)


@pytest.mark.parametrize("method", METHODS)
def test_a_traced_program_copies_nothing_from_the_host(method, make_clip):
    """Which would end the capture of a CUDA graph."""
    compressor = program(method)
    given = inputs(compressor, make_clip, torch.bfloat16)
    moved = program_on(compressor, given, "meta")
    given = tuple(value.to("meta") for value in given)
    with OneDevice(only="meta"):
        found = moved(*given)
    assert all(output.is_meta for output in found) and found[0].shape == (compressor.budget, WIDTH)


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
