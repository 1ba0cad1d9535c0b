import dataclasses
import errno
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.bundles.graph_runs import exported, run
from helpers.bundles.tiny import TINY
from torch import nn

from rap_edge.export.bundle_writer import new_bundle, refuse_to_replace, require_space
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import GRAPH_NAMES, GraphInfo, Manifest
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.errors import BundleError, OutputError


def linear() -> ir.Model:
    return exported(nn.Linear(32, 32), torch.randn(1, 32))


def manifest(writer, content: bytes, precision: Precision = Precision.FP32) -> Manifest:
    graphs = {name: GraphInfo(writer.add(f"{name}.onnx", content), (), ()) for name in GRAPH_NAMES}
    return Manifest(TINY, precision, graphs, writer.hashes())


# An ONNX file of an empty graph.
EMPTY = b"\x3a\x00"


def write(target, content: bytes = EMPTY) -> None:
    with new_bundle(target) as writer:
        writer.commit(manifest(writer, content))


def write_half(target, interruption: BaseException) -> None:
    with new_bundle(target) as writer:
        writer.add("dit.onnx", b"new")
        raise interruption


def siblings(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_appears_complete_under_its_name(tmp_path) -> None:
    write(tmp_path / "deep" / "bundle")
    Bundle.open(tmp_path / "deep" / "bundle").verify()
    assert siblings(tmp_path / "deep") == ["bundle"]


def test_nothing_is_left_when_the_export_fails(tmp_path) -> None:
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "bundle", RuntimeError())
    assert siblings(tmp_path) == []


def test_an_older_bundle_survives_a_failure_and_is_replaced_by_success(tmp_path) -> None:
    write(tmp_path / "bundle", b"old")
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "bundle", KeyboardInterrupt())
    assert (tmp_path / "bundle" / "dit.onnx").read_bytes() == b"old"
    write(tmp_path / "bundle", b"new")
    assert (tmp_path / "bundle" / "dit.onnx").read_bytes() == b"new"
    assert siblings(tmp_path) == ["bundle"]


def test_a_folder_of_other_files_is_not_replaced(tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"")
    with pytest.raises(OutputError, match="other files"):
        refuse_to_replace(tmp_path / "photos")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="is a file"):
        refuse_to_replace(tmp_path / "file")


def written(folder, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_of_a_web_app_with_its_own_manifest_is_not_replaced(tmp_path) -> None:
    app = tmp_path / "app"
    written(app, {"manifest.json": '{"name": "My app", "start_url": "/"}', "src/index.js": "let x;"})
    before = contents(app)
    with pytest.raises(OutputError, match="other files than a bundle"):
        write(app)
    assert contents(app) == before
    assert siblings(tmp_path) == ["app"]


@pytest.mark.parametrize("mine", ["notes.txt", "golden/notes.txt", "sub/deep/take.wav", ".git/HEAD"])
def test_a_bundle_with_a_file_of_the_users_is_not_replaced(tmp_path, mine: str) -> None:
    write(tmp_path / "bundle", b"old")
    written(tmp_path / "bundle", {mine: "mine"})
    before = contents(tmp_path / "bundle")
    with pytest.raises(OutputError, match="does not list"):
        write(tmp_path / "bundle", b"new")
    assert contents(tmp_path / "bundle") == before
    assert siblings(tmp_path) == ["bundle"]


def test_a_folder_of_the_users_in_a_bundle_keeps_it_from_being_replaced(tmp_path) -> None:
    write(tmp_path / "bundle", b"old")
    (tmp_path / "bundle" / "empty").mkdir()
    with pytest.raises(OutputError, match="'empty'"):
        refuse_to_replace(tmp_path / "bundle")


def test_what_comes_into_the_folder_during_the_export_is_kept_and_so_is_the_new_bundle(tmp_path) -> None:
    target = tmp_path / "bundle"
    write(target, b"old")
    with new_bundle(target) as writer:
        content = manifest(writer, EMPTY)
        written(target, {"notes.txt": "mine"})
        with pytest.raises(OutputError, match="complete in") as caught:
            writer.commit(content)
    assert contents(target)["notes.txt"] == b"mine"
    assert contents(target)["dit.onnx"] == b"old"
    (other,) = (path for path in tmp_path.iterdir() if path != target)
    assert repr(str(other)) in str(caught.value)
    Bundle.open(other).verify()
    assert not other.name.startswith(".")


def test_a_folder_that_cannot_be_moved_aside_keeps_the_old_bundle_and_the_new_one(tmp_path, monkeypatch) -> None:
    target, rename = tmp_path / "bundle", Path.rename
    write(target, b"old")

    def busy(path: Path, other: Path) -> Path:
        if path == target:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(path, other)

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(OutputError, match=r"resource busy\); the new bundle is complete in"):
        write(target, b"new")
    assert contents(target)["dit.onnx"] == b"old"
    (other,) = (path for path in tmp_path.iterdir() if path != target)
    assert contents(other)["dit.onnx"] == b"new"


def test_a_folder_below_a_file_is_an_output_error(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file" / "bundle")


def test_too_little_space_is_said_before_the_work_begins(tmp_path) -> None:
    require_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(OutputError, match="GB are free"):
        require_space(tmp_path, 1 << 60)


def test_weights_above_the_limit_go_into_a_file_beside_the_graph(tmp_path) -> None:
    model = linear()
    name, x = model.graph.inputs[0].name, np.ones((1, 32), np.float32)
    expected = run(model, {name: x})[0]
    with new_bundle(tmp_path / "bundle") as writer:
        assert writer.save_graph(linear(), "small") == ("small.onnx", ())
        assert writer.save_graph(model, "large", limit=1000) == ("large.onnx", ("large.onnx.data",))
        large = writer.root / "large.onnx"
        stored = onnx.load(large, load_external_data=False).graph.initializer
        assert any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in stored)
        assert large.stat().st_size < 1000 + (writer.root / "large.onnx.data").stat().st_size
        onnx.checker.check_model(str(large), full_check=True)
        assert np.array_equal(run(large, {name: x})[0], expected)


def test_the_manifest_lists_every_file_with_its_hash(tmp_path) -> None:
    with new_bundle(tmp_path / "bundle") as writer:
        content = manifest(writer, b"x")
        writer.add("golden/portrait.png", b"png")
        writer.commit(dataclasses.replace(content, files=writer.hashes()))
    listed = set(Bundle.open(tmp_path / "bundle").manifest.files)
    assert listed == {f"{name}.onnx" for name in GRAPH_NAMES} | {"golden/portrait.png"}


def test_a_manifest_that_nobody_could_read_is_not_written(tmp_path) -> None:
    with pytest.raises(BundleError, match="control characters"), new_bundle(tmp_path / "bundle") as writer:
        writer.commit(dataclasses.replace(manifest(writer, EMPTY), provenance={"checkpoint": "with\x1b[2J"}))
    assert not (tmp_path / "bundle").exists()
