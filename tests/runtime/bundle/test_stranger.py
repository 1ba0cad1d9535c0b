"""A bundle from a stranger: whatever its files are, and whoever changes them meanwhile, it runs as hashed or not."""

from __future__ import annotations

import json
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

from rap_edge.runtime.bundle.bundle import Bundle, hash_file
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME
from rap_edge.runtime.engines.onnxruntime_engine import CPU_ONLY, OnnxRuntimeEngine, load_engines
from rap_edge.runtime.errors import BundleError, EngineError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes and devices in folders")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


def socket_at(path: Path) -> None:
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def loop_at(path: Path) -> None:
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (lambda path: os.mkfifo(path), "it is no file but a pipe"),
    "socket": (socket_at, "it is no file but a socket"),
    "folder": (lambda path: path.mkdir(), "it is no file but a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "leads outside the bundle"),
    "loop": (loop_at, "it is a link|lacks|readable"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", [MANIFEST_NAME, "dit.onnx", "portrait.png"])
def test_what_is_no_file_is_neither_waited_for_nor_read(
    folder: Path, odd: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    make, sentence = ODD[odd]
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(BundleError, match=sentence):
        Bundle.open(folder).verify()
    with pytest.raises(BundleError, match=sentence):
        Bundle.open(folder).read(name)


def test_a_manifest_is_read_to_its_limit_only(folder: Path) -> None:
    with (folder / MANIFEST_NAME).open("a") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="larger than 16 MiB"):
        Bundle.open(folder)


def test_a_pipe_is_not_hashed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="it is no file but a pipe"):
        hash_file(tmp_path / "pipe")


def test_a_link_inside_the_bundle_is_followed(folder: Path) -> None:
    (folder / "dit.onnx").rename(folder / "other.onnx")
    (folder / "dit.onnx").symlink_to("other.onnx")
    load_engines(Bundle.open(folder), 1, CPU_ONLY)


def list_file(folder: Path, name: str, data: list[str] | None = None) -> None:
    """Let the manifest state what lies there now, as a stranger's would."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest["files"][name] = vars(hash_file(folder / name))
    if data is not None:
        manifest["graphs"]["dit"]["data"] = data
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))


def with_external_weights(folder: Path) -> bytes:
    """Move the weights of the denoiser into a file beside it; returns its content."""
    model, content = onnx.load(folder / "dit.onnx"), b""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            set_external_data(tensor, "dit.data", len(content), len(tensor.raw_data))
            content += tensor.raw_data
            tensor.ClearField("raw_data")
    (folder / "dit.data").write_bytes(content)
    (folder / "dit.onnx").write_bytes(model.SerializeToString())
    return content


def test_listed_weights_are_read_from_what_was_hashed(folder: Path) -> None:
    expected = run(load_engines(Bundle.open(folder), 1, CPU_ONLY)["dit"])
    with_external_weights(folder)
    list_file(folder, "dit.onnx")
    list_file(folder, "dit.data", ["dit.data"])
    np.testing.assert_array_equal(run(load_engines(Bundle.open(folder), 1, CPU_ONLY)["dit"]), expected)


def test_unlisted_weights_are_not_read(folder: Path) -> None:
    with_external_weights(folder)
    list_file(folder, "dit.onnx")
    with pytest.raises(BundleError, match=r"reads 'dit\.data', which the manifest does not list as its data"):
        load_engines(Bundle.open(folder), 1, CPU_ONLY)
    # Listed as a file, but not as the graph's.
    list_file(folder, "dit.data")
    with pytest.raises(BundleError, match="does not list as its data"):
        Bundle.open(folder).verify()


def test_changed_weights_are_refused(folder: Path) -> None:
    content = with_external_weights(folder)
    list_file(folder, "dit.onnx")
    list_file(folder, "dit.data", ["dit.data"])
    (folder / "dit.data").write_bytes(bytes(len(content)))
    with pytest.raises(BundleError, match=r"'dit\.data' has been changed"):
        load_engines(Bundle.open(folder), 1, CPU_ONLY)


def run(engine: OnnxRuntimeEngine) -> np.ndarray:
    execution = engine.prepare()
    for index, tensor in enumerate(engine.graph.inputs):
        execution.buffers[tensor.name][...] = 0.1 * (index + 1)
    execution.run()
    return execution.buffers["velocity"].copy()


def test_a_graph_that_is_exchanged_after_its_check_does_not_run(folder: Path) -> None:
    bundle = Bundle.open(folder)
    expected = run(load_engines(bundle, 1, CPU_ONLY)["dit"])
    with bundle.graph_content("dit") as content:
        model = onnx.load(folder / "dit.onnx")
        for node in model.graph.node:
            node.op_type = "Add" if node.op_type == "Sub" else node.op_type
        onnx.save(model, folder / "dit.onnx")
        engine = OnnxRuntimeEngine("dit", bundle.manifest.graphs["dit"], content, 1, CPU_ONLY)
    np.testing.assert_array_equal(run(engine), expected)
    with pytest.raises(BundleError, match=r"'dit\.onnx' has"):
        load_engines(bundle, 1, CPU_ONLY)


def test_a_file_that_changes_while_it_is_mapped_is_refused(folder: Path) -> None:
    mapped = Bundle.open(folder).mapped("dit.onnx")
    assert isinstance(mapped.__enter__(), mmap.mmap)
    with (folder / "dit.onnx").open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"'dit\.onnx' was changed while it was read"):
        mapped.__exit__(None, None, None)


def test_what_looks_like_onnx_runtimes_own_format_is_read_as_onnx(folder: Path) -> None:
    """Bytes 4 to 8 name that format; here they are the end of a producer's name."""
    model = onnx.load(folder / "dit.onnx")
    (folder / "dit.onnx").write_bytes(b"\x12\x06..ORTM" + model.SerializeToString())
    assert (folder / "dit.onnx").read_bytes()[4:8] == b"ORTM"
    list_file(folder, "dit.onnx")
    run(load_engines(Bundle.open(folder), 1, CPU_ONLY)["dit"])


def replace_graph(
    folder: Path,
    node: onnx.NodeProto,
    functions: list[onnx.FunctionProto],
    weights: list[TensorProto] | None = None,
) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    graph = helper.make_graph([node], "g", [x], [y], weights)
    onnx.save(helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10), folder / "dit.onnx")
    list_file(folder, "dit.onnx")


def test_a_bomb_of_five_kilobytes_is_refused_before_it_unfolds(folder: Path) -> None:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "F0", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], opsets)]
    for level in range(28):
        calls = [helper.make_node(f"F{level}", list(ends[0]), list(ends[1]), domain="own") for ends in ("am", "mb")]
        functions.append(helper.make_function("own", f"F{level + 1}", ["a"], ["b"], calls, opsets))
    replace_graph(folder, helper.make_node("F28", ["x"], ["y"], domain="own"), functions)
    assert (folder / "dit.onnx").stat().st_size < 5000
    with pytest.raises(BundleError, match="functions within each other"):
        load_engines(Bundle.open(folder), 1, CPU_ONLY)


def test_a_loop_without_an_end_is_refused_before_it_begins(folder: Path) -> None:
    true, count = helper.make_tensor("true", TensorProto.BOOL, [], [True]), TensorProto.INT64
    ends = [("i", count, []), ("more", TensorProto.BOOL, []), ("a", TensorProto.FLOAT, [4])]
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["again"]), helper.make_node("Neg", ["a"], ["b"])],
        "body",
        [helper.make_tensor_value_info(*end) for end in ends],
        [helper.make_tensor_value_info(name, *end[1:]) for name, end in zip(("again", "b"), ends[1:], strict=True)],
    )
    forever = helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    replace_graph(folder, forever, [], [true])
    with pytest.raises(BundleError, match="has the loop 'Loop'"):
        load_engines(Bundle.open(folder), 1, CPU_ONLY)


def test_an_operator_that_would_need_a_library_is_refused(folder: Path) -> None:
    replace_graph(folder, helper.make_node("F", ["x"], ["y"], domain="elsewhere"), [])
    with pytest.raises(BundleError, match="which it does not define"):
        load_engines(Bundle.open(folder), 1, CPU_ONLY)


def test_ones_own_file_is_loaded_by_its_path(folder: Path) -> None:
    bundle = Bundle.open(folder)
    OnnxRuntimeEngine("dit", bundle.manifest.graphs["dit"], folder / "dit.onnx", 1, CPU_ONLY)
    with pytest.raises(EngineError, match=r"cannot load 'dit\.onnx'"):
        OnnxRuntimeEngine("dit", bundle.manifest.graphs["dit"], folder / "none.onnx", 1, CPU_ONLY)
