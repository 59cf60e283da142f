"""What `make placement` makes of onnxruntime's log and of its list of kernels; itself it needs onnxruntime-gpu."""

from __future__ import annotations

import onnx
import placement
from placement import Row, judge, merged, of_sizes, read_log

LOG = """\
[V:onnxruntime:, session_state.cc:1351 VerifyEachNodeIsAssignedToAnEp] Node placements
[V:onnxruntime:, session_state.cc:1354 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [CPUExecutionProvider]. \
Number of nodes: 2
[V:onnxruntime:, session_state.cc:1358 VerifyEachNodeIsAssignedToAnEp]   Equal (grad/Equal_24)
[I:onnxruntime:, allocator.cc:1 Other] Relu (not a placement)
[V:onnxruntime:, session_state.cc:1358 VerifyEachNodeIsAssignedToAnEp]   MaxPool (pool (first))
[V:onnxruntime:, session_state.cc:1354 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [CUDAExecutionProvider]. \
Number of nodes: 1
[V:onnxruntime:, session_state.cc:1358 VerifyEachNodeIsAssignedToAnEp]   Conv (conv)
"""

GRAPH = """<ir_version: 8, opset_import: ["" : 18]> g (float[N, 3] x, int64[N] i) => (float[M, K] y) {
    [size] s = Shape(x)
    [last] k = Constant <value = int64[1] {1}> ()
    ["grad/taken"] w = Gather(s, k)
    ["grad/same"] e = Equal(w, k)
    ["grad/index"] j = Neg(i)
    [own] r = Relu(x)
    ["grad/both"] y = Expand(r, s)
}"""


def test_log() -> None:
    assert read_log(LOG) == {
        placement.CPU: [("Equal", "grad/Equal_24"), ("MaxPool", "pool (first)")],
        placement.CUDA: [("Conv", "conv")],
    }


def test_log_where_one_provider_takes_all() -> None:
    line = "[V VerifyEachNodeIsAssignedToAnEp]  All nodes placed on [CUDAExecutionProvider]. Number of nodes: 660\n"
    assert read_log(line) == {placement.CUDA: []}


def test_nodes_that_depend_on_sizes_alone() -> None:
    assert of_sizes(onnx.parser.parse_model(GRAPH).graph) == {"size", "last", "grad/taken", "grad/same"}


def test_what_falls_back() -> None:
    """Sizes may; an index that is fed, and what reads an image, may not."""
    row, sizes = Row("m", "float32", 4), of_sizes(onnx.parser.parse_model(GRAPH).graph)
    on_cpu = [("Gather", "grad/taken"), ("Neg", "grad/index"), ("Expand", "grad/both"), ("Relu", "own")]
    assert judge(row, sizes, on_cpu) == Row("m", "float32", 4, 1, "Expand, Neg", "Relu")
    assert judge(row, sizes, [("Shape", "size")]) == Row("m", "float32", 4, 0, "", "")
    assert judge(row, sizes, 2 * [("Conv", "grad/c")]) == Row("m", "float32", 4, 0, "Conv ×2", "")


def test_kernels_that_differ_in_one_type_are_one_entry() -> None:
    full = [{"T": (a,), "U": (b,)} for a in ("double", "float") for b in ("int32", "int64")]
    assert merged(full) == [{"T": ("double", "float"), "U": ("int32", "int64")}]


def test_merging_adds_no_combination() -> None:
    variants = [{"T": ("float",), "U": ("int32",)}, {"T": ("double",), "U": ("int64",)}]
    assert sorted(merged(variants), key=str) == sorted(variants, key=str)


def test_the_table_is_written_where_the_package_reads_it() -> None:
    assert placement.KERNELS.read_text("utf-8").startswith('{"onnxruntime": ')
