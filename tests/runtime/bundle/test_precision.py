import dataclasses
import json

import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import Manifest
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.errors import BundleError


@pytest.mark.parametrize("precision", Precision)
def test_a_manifest_says_it_in_a_plain_word_and_reads_it_as_a_value(precision: Precision, tmp_path) -> None:
    manifest = dataclasses.replace(Bundle.open(write_tiny_bundle(tmp_path / "bundle")).manifest, precision=precision)
    text = manifest.to_json()
    assert json.loads(text)["precision"] == str(precision)
    assert Manifest.from_json(text).precision is precision


@pytest.mark.parametrize("word", ["fp4", "FP32", "", None, 16, ["fp16"]])
def test_an_unknown_one_is_refused(word: object, tmp_path) -> None:
    content = json.loads(Bundle.open(write_tiny_bundle(tmp_path / "bundle")).manifest.to_json())
    with pytest.raises(BundleError, match="precision must be one of fp32, fp16, int8, fp8"):
        Manifest.from_json(json.dumps(content | {"precision": word}))


def test_wide_numbers_take_what_their_state_takes() -> None:
    for precision in Precision:
        assert precision.width == {"float32": 4, "float16": 2}[precision.state_dtype]
