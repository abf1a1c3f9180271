"""The ONNX Runtime backend: bindings hold, outputs are not overwritten, and what is missing is named."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from edgevtc.backends import create_backend
from edgevtc.backends.onnxruntime import PROVIDERS, OnnxRuntimeSession, OrtTensor, Provider
from edgevtc.bundle import Bundle
from edgevtc.errors import BackendError, ConfigError
from edgevtc.runner import Runner


@pytest.fixture(scope="module")
def backend():
    return create_backend("cpu", threads=1)


@pytest.fixture
def session(backend):
    bundle = Bundle()
    return backend.load(bundle.path, bundle.file(bundle.manifest.method("uniform", 58).compressor))


def features(value):
    return np.full((16, 36, 192), value, np.float32) + np.arange(16 * 36, dtype=np.float32).reshape(16, 36, 1)


def test_names_shapes_and_types_are_the_graphs(session):
    assert session.inputs["frame_tokens"].shape == (16, 36, 192)
    assert {name: (spec.shape, spec.dtype.name) for name, spec in session.outputs.items()} == {
        "tokens": ((58, 192), "float32"),
        "positions": ((58,), "int32"),
        "counts": ((58,), "int32"),
        "assignment": ((16, 36), "int32"),
    }


def test_a_fresh_output_outlives_the_next_run(backend, session):
    session.bind("frame_tokens", backend.tensor(features(0)))
    session.run()
    first = session.output("tokens").numpy()
    kept = first.copy()
    session.bind("frame_tokens", backend.tensor(features(1000)))
    session.run()
    assert np.array_equal(first, kept)
    assert np.array_equal(session.output("tokens").numpy(), kept + 1000)


def test_a_bound_output_is_written_in_place(backend, session):
    target = backend.empty((58, 192), np.float32)
    session.bind("tokens", target)
    for value in (1, 2):
        session.bind("frame_tokens", backend.tensor(features(value)))
        session.run()
        positions = session.output("positions").numpy()
        assert np.array_equal(target.numpy()[:, 0], value + positions.astype(np.float32))


def test_the_array_given_may_be_reused_after_a_run(backend, session):
    array = features(0)
    session.bind("frame_tokens", backend.tensor(array))
    session.run()
    before = session.output("tokens").numpy().copy()
    array[:] = 7
    assert np.array_equal(session.output("tokens").numpy(), before)


def test_wrong_names_and_missing_inputs_are_errors(backend, session):
    with pytest.raises(BackendError, match="no input or output 'frames'"):
        session.bind("frames", backend.empty((1,), np.float32))
    with pytest.raises(BackendError, match="failed while running"):
        session.run()


def test_a_graph_that_is_none_is_refused(backend, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(BackendError, match=r"cannot load x\.onnx on cpu"):
        backend.load(tmp_path, tmp_path / "x.onnx")


def test_an_unknown_device_lists_the_valid_ones():
    with pytest.raises(ConfigError, match="one of: cpu, cuda"):
        create_backend("npu")


def test_cuda_computes_float32_as_float32_and_nothing_else(monkeypatch, tmp_path, capsys):
    """With TF32, which that provider has on by default, thresholds and sums would be those of ten bits."""
    told = []

    class Runtime:
        SessionOptions, __version__ = onnxruntime.SessionOptions, onnxruntime.__version__
        set_default_logger_severity = staticmethod(told.append)

        @staticmethod
        def preload_dlls():
            print("not found")
            told.append("libraries")

        @staticmethod
        def get_available_providers():
            return ["CUDAExecutionProvider"]

        @staticmethod
        def InferenceSession(graph, options, providers, enable_fallback):
            told.extend([*providers, enable_fallback])
            raise RuntimeError("no driver")

    monkeypatch.setitem(sys.modules, "onnxruntime", Runtime)
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(BackendError, match=r"cannot load x\.onnx on cuda: no driver"):
        create_backend("cuda").load(tmp_path, tmp_path / "x.onnx")
    assert told == [4, "libraries", ("CUDAExecutionProvider", {"use_tf32": "0"}), 0]
    assert capsys.readouterr().out == ""


def test_on_a_gpu_each_run_reads_what_an_input_holds_by_then():
    """ONNX Runtime copies what nodes on the CPU read when it is bound; a cache is written by the run itself."""

    class Binding:
        given = None

        def bind_ortvalue_input(self, name, value):
            self.given = value.copy()

    class Stub:
        binding, seen = Binding(), []

        def io_binding(self):
            return self.binding

        def get_inputs(self):
            return [SimpleNamespace(name="past", shape=[1], type="tensor(float)")]

        def get_outputs(self):
            return []

        def run_with_iobinding(self, binding):
            self.seen.append(float(binding.given[0]))

    stub, past = Stub(), np.zeros(1, np.float32)
    session = OnnxRuntimeSession(onnxruntime, stub, "cuda", {})
    session.bind("past", OrtTensor(past))
    session.run()
    past[0] = 7
    session.run()
    assert stub.seen == [0, 7]


#: A provider of the plain build that takes no node, as one for a GPU takes none that it has no kernel for.
IDLE = "AzureExecutionProvider"


@pytest.fixture
def idle(monkeypatch):
    monkeypatch.setitem(PROVIDERS, "cpu", Provider(IDLE, "cpu", {}))
    return create_backend("cpu", threads=1)


@pytest.mark.skipif(
    IDLE not in onnxruntime.get_available_providers()
    or not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"),
    reason="this ONNX Runtime has no such provider or does not tell where nodes run",
)
def test_what_a_device_leaves_to_the_cpu_is_told(idle, backend, samples):
    runner = Runner(device=idle)
    answer = runner.open(samples / "corridor.mp4").ask("what changed")
    graph = runner.bundle.manifest.decoder.graphs[runner.weight_format]
    [told] = [line for line in answer.warnings if graph in line]
    assert told.startswith(f"cpu has no kernels for all of {graph}, the CPU computes ")
    assert "MatMulIntegerToFloat (24)" in told and "QuantizeLinear (24)" in told
    assert any("encoder.onnx" in line for line in answer.warnings)
    at_home = Runner(device=backend).open(samples / "corridor.mp4").ask("what changed")
    assert at_home.warnings == [] and at_home.answer == answer.answer


def test_without_onnxruntime_the_extra_is_named(samples):
    program = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'onnxruntime':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from edgevtc.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "ask", str(samples / "corridor.mp4"), "what changed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "pip install 'edgevtc[cpu]'" in done.stderr
