import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.errors import ServeError
from rap_edge.runtime.serve.local.control import (
    VERBS,
    Audio,
    PassedOverError,
    encoded,
    parse_hello,
    parse_message,
)
from rap_edge.runtime.serve.transports.protocol import MAX_BINARY

WORDS = st.sampled_from(["audio", "interrupt", "end_utterance", "finish", "start", "", "AUDIO"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MESSAGES = st.fixed_dictionaries({}, optional={"type": WORDS | VALUES, "bytes": VALUES, "rate": VALUES})
LINES = st.binary(max_size=200) | MESSAGES.map(lambda message: json.dumps(message).encode())


@settings(max_examples=100, deadline=None)
@given(LINES)
def test_any_line_is_a_message_or_a_sentence(line: bytes) -> None:
    for parse in (parse_message, parse_hello):
        try:
            parsed = parse(line)
        except ServeError as error:
            sentence = str(error)
            assert sentence.endswith(".")
            assert len(sentence) < 400
            assert encoded({"message": sentence}).count(b"\n") == 1
        else:
            assert not isinstance(parsed, Audio) or 0 <= parsed.size <= MAX_BINARY


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_verb_is_its_type(verb: str) -> None:
    assert parse_message(json.dumps({"type": verb, "more": [1]}).encode()) == verb


@pytest.mark.parametrize("size", [-1, MAX_BINARY + 1, 1.0, True, None, "640", 10**400])
def test_sound_of_no_length_ends_it_since_nobody_knows_where_it_stops(size: object) -> None:
    with pytest.raises(ServeError, match='"bytes"') as caught:
        parse_message(json.dumps({"type": "audio", "bytes": size}).encode())
    assert not isinstance(caught.value, PassedOverError)


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 4000, b"\0" * 100, b'"audio"'])
def test_what_is_no_message_is_refused_for_good(line: bytes) -> None:
    with pytest.raises(ServeError) as caught:
        parse_message(line)
    assert not isinstance(caught.value, PassedOverError)


@pytest.mark.parametrize("kind", ["hello", None, 5, {"deep": {}}, "x" * 4000])
def test_a_type_that_there_is_not_is_passed_over(kind: object) -> None:
    with pytest.raises(PassedOverError, match="may be asked for"):
        parse_message(json.dumps({"type": kind}).encode())


@pytest.mark.parametrize("version", [0, 2, "1", None, 10**30])
def test_a_client_of_another_version_is_told_which_one_it_needs(version: object) -> None:
    with pytest.raises(ServeError, match="build the client of this release"):
        parse_hello(json.dumps({"type": "start", "rate": 16000, "version": version}).encode())
    assert parse_hello(b'{"type": "start", "rate": 16000, "version": 1}').sound.rate == 16000
