from __future__ import annotations

import onnx_ir as ir
import pytest

from edgevtc.errors import ConfigError, ExportError
from edgevtc.exporter.contract import BANNED_OPS, GRAPH_KINDS, check_graph, require_contract

pytestmark = pytest.mark.export

INPUTS = "float[2,4,8] frame_tokens, float[2,4] saliency"
OUTPUTS = "float[3,8] tokens, int32[3] positions, int32[3] counts, int32[2,4] assignment"
BODY = """
    [positions] positions = Constant<value = int32[3] {0, 3, 5}>()
    [counts] counts = Constant<value = int32[3] {1, 1, 1}>()
    [assignment] assignment = Constant<value = int32[2,4] {0, -1, -1, 1, -1, 2, -1, -1}>()
    [shape] shape = Constant<value = int64[2] {8, 8}>()
    [flat] flat = Reshape(frame_tokens, shape)
    [tokens] tokens = Gather(flat, positions)
"""
VALUES = "int64[2] shape, float[8,8] flat"


def compressor(
    nodes: str = "", values: str = "", inputs: str = INPUTS, outputs: str = OUTPUTS, versions: str = "", rest: str = ""
) -> ir.Model:
    """A compressor graph that keeps the contract, with `nodes` in front whose outputs are declared by `values`."""
    header = versions or '<ir_version: 10, opset_import: ["": 20, "other": 1]>'
    infos = ", ".join(part for part in (VALUES, values) if part)
    return ir.from_onnx_text(f"{header}\nbad ({inputs}) => ({outputs}) <{infos}> {{{nodes}{BODY}}}\n{rest}")


def rules(model: ir.Model, kind: str = "compressor", **options: bool) -> list[tuple[str, str]]:
    return [(breach.rule, breach.node) for breach in check_graph(model, kind, **options)]


def test_a_graph_that_keeps_the_contract_has_no_breach() -> None:
    assert check_graph(compressor(), "compressor") == []
    require_contract(compressor(), "compressor")


@pytest.mark.parametrize(
    ("rule", "nodes", "values"),
    [
        ("banned-ops", "[bad] z = NonZero(saliency)", "int64[2,8] z"),
        ("banned-ops", "[bad] z = RandomUniformLike(saliency)", "float[2,4] z"),
        (
            "banned-ops",
            "axis = Constant<value = int64 {1}>()  [bad] z = CumSum(saliency, axis)",
            "int64 axis, float[2,4] z",
        ),
        ("static-shapes", "[bad] z = Relu(saliency)", "float[2,N] z"),
        ("static-shapes", "[bad] z = Relu(saliency)", ""),
        (
            "scatter",
            'i = Cast<to = 7>(saliency)  [bad] z = ScatterElements<axis = 1, reduction = "add">(saliency, i, saliency)',
            "int64[2,4] i, float[2,4] z",
        ),
        (
            "scatter",
            "i = Constant<value = int64[1,1] {0}>()  u = Constant<value = float[1,4] {1, 1, 1, 1}>()"
            '  [bad] z = ScatterND<reduction = "max">(saliency, i, u)',
            "int64[1,1] i, float[1,4] u, float[2,4] z",
        ),
        (
            "scatter",
            "d = Constant<value = float[2,2] {0, 0, 0, 0}>()  i = Cast<to = 7>(saliency)"
            "  [bad] z = ScatterElements<axis = 1>(d, i, saliency)",
            "float[2,2] d, int64[2,4] i, float[2,2] z",
        ),
        ("integer-kernels", "i = Cast<to = 6>(saliency)  [bad] z = Clip(i)", "int32[2,4] i, int32[2,4] z"),
        (
            "integer-kernels",
            "i = Cast<to = 7>(saliency)  p = Constant<value = int64[4] {0, 0, 0, 1}>()  [bad] z = Pad(i, p)",
            "int64[2,4] i, int64[4] p, int64[2,5] z",
        ),
        (
            "topk",
            "k = Cast<to = 7>(saliency)  [bad] z, i = TopK(saliency, k)",
            "int64[2,4] k, float[2,4] z, int64[2,4] i",
        ),
        (
            "topk",
            "k = Constant<value = int64[1] {3841}>()  [bad] z, i = TopK(saliency, k)",
            "int64[1] k, float[2,3841] z, int64[2,3841] i",
        ),
        (
            "argmax-rank",
            "s = Constant<value = int64[1] {8}>()  r = Reshape(saliency, s)  [bad] z = ArgMax<keepdims = 0>(r)",
            "int64[1] s, float[8] r, int64 z",
        ),
        (
            "argmax-rank",
            "s = Constant<value = int64[1] {8}>()  r = Reshape(saliency, s)  [bad] z = ArgMin<keepdims = 0>(r)",
            "int64[1] s, float[8] r, int64 z",
        ),
        ("uint8", "[bad] z = Cast<to = 2>(saliency)", "uint8[2,4] z"),
        ("float64", "[bad] z = Cast<to = 11>(saliency)", "double[2,4] z"),
        ("float64", "[bad] z = Constant<value = double[1] {1.0}>()", "double[1] z"),
        (
            "float64",
            "[bad] z = Cast<to = 11>(saliency)  y = Relu(z)  x = Neg(y)",
            "double[2,4] z, double[2,4] y, double[2,4] x",
        ),
        ("standard-ops", "[bad] z = other.FusedGelu(saliency)", "float[2,4] z"),
    ],
)
def test_a_breach_names_its_node(rule: str, nodes: str, values: str) -> None:
    assert rules(compressor(nodes, values)) == [(rule, "bad")]


@pytest.mark.parametrize(
    ("nodes", "values"),
    [
        ("k = Constant<value = int64[1] {3840}>()  z, i = TopK(saliency, k)", "int64[1] k, float[2,4] z, int64[2,4] i"),
        (
            "i = Cast<to = 7>(saliency)  z = ScatterElements<axis = 1>(saliency, i, saliency)",
            "int64[2,4] i, float[2,4] z",
        ),
        ("z = ArgMax<axis = 1, keepdims = 0>(saliency)", "int64[2] z"),
    ],
)
def test_what_engines_take_is_no_breach(nodes: str, values: str) -> None:
    assert rules(compressor(nodes, values)) == []


def test_every_banned_operator_is_found() -> None:
    for op in BANNED_OPS:
        assert ("banned-ops", "bad") in rules(compressor(f"[bad] z = {op}(saliency)", "float[2,4] z")), op


BRANCH = """
    go = Constant<value = bool {1}>()
    [choice] z = If<then_branch = yes () => (float[2,4] a) <int64[2,3] n> {
        [inner] n = NonZero(saliency)
        a = Identity(saliency)
    }, else_branch = no () => (float[2,4] b) { b = Relu(saliency) }>(go)
"""


def test_subgraphs_are_looked_into_and_control_flow_only_hinders_capture() -> None:
    model = compressor(BRANCH, "bool go, float[2,4] z")
    assert rules(model) == [("control-flow", "choice"), ("banned-ops", "inner")]
    assert rules(model, capturable=False) == [("banned-ops", "inner")]


def test_functions_are_looked_into() -> None:
    function = """
        <opset_import: ["": 20], domain: "other">
        Half (x) => (y) {
            [inner] n = NonZero(x)
            y = Identity(x)
        }
    """
    assert rules(compressor("[call] z = other.Half(saliency)", "float[2,4] z", rest=function)) == [
        ("banned-ops", "inner")
    ]


def test_versions_beyond_the_oldest_runtime_are_named() -> None:
    model = compressor(versions='<ir_version: 11, opset_import: ["": 23]>')
    assert rules(model) == [("versions", "bad"), ("versions", "bad")]


@pytest.mark.parametrize(
    ("changes", "breach"),
    [
        ({"inputs": INPUTS.replace("saliency", "scores")}, ("interface", "scores")),
        ({"inputs": INPUTS.replace("[2,4,8]", "[T,4,8]")}, ("static-shapes", "frame_tokens")),
        ({"outputs": OUTPUTS.replace("int32[3] counts, ", "")}, ("interface", "bad")),
        ({"outputs": OUTPUTS.replace("int32[3] counts", "int64[3] counts")}, ("interface", "counts")),
    ],
)
def test_names_types_and_shapes_of_the_interface(changes: dict[str, str], breach: tuple[str, str]) -> None:
    assert breach in rules(compressor(**changes))


def test_frames_are_uint8() -> None:
    text = '<ir_version: 10, opset_import: ["": 20]>\ng (TYPE[1,2,2,3] frames) => (float[1,2,2,3] frame_tokens) {OP}'
    good = text.replace("TYPE", "uint8").replace("OP", "frame_tokens = Cast<to = 1>(frames)")
    assert rules(ir.from_onnx_text(good), "encoder") == []
    bad = text.replace("TYPE", "float").replace("OP", "frame_tokens = Identity(frames)")
    assert rules(ir.from_onnx_text(bad), "encoder") == [("interface", "frames")]


def test_frames_are_cast_before_anything_else() -> None:
    text = """
        <ir_version: 10, opset_import: ["": 20]>
        g (uint8[1,2,2,3] frames) => (float[1,3,2,2] frame_tokens) <uint8[1,3,2,2] turned> {
            [bad] turned = Transpose<perm = [0, 3, 1, 2]>(frames)
            frame_tokens = Cast<to = 1>(turned)
        }
    """
    assert rules(ir.from_onnx_text(text), "encoder") == [("uint8", "bad")]


def test_an_initializer_in_float64_is_named() -> None:
    model = compressor()
    value = ir.Value(name="table", const_value=ir.tensor([1.0], dtype=ir.DataType.DOUBLE))
    value.dtype = ir.DataType.DOUBLE
    model.graph.initializers["table"] = value
    assert ("float64", "table") in rules(model)


def test_the_error_names_the_nodes_and_is_one_line() -> None:
    nodes = " ".join(f"[bad{i}] z{i} = Relu(saliency)" for i in range(7))
    with pytest.raises(
        ExportError, match=r"'bad' breaks the compressor graph contract: bad0: .*bad4: .*; and 2 more"
    ) as error:
        require_contract(compressor(nodes), "compressor")
    assert "\n" not in str(error.value)


def test_an_unknown_kind_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=", ".join(GRAPH_KINDS)):
        check_graph(compressor(), "decoder")
