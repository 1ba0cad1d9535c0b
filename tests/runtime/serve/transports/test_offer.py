"""Offers as strangers send them: nobody may get more than an answer, and no place may stay taken."""

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator

import pytest
from aiortc import RTCPeerConnection
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.serving.kiosk_client import Client, good_offer, served
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rap_edge.runtime.serve.kiosk import Kiosk
from rap_edge.runtime.serve.transports import webrtc


class Posted:
    """A kiosk with two places whose visitors never come, and the event loop where it lives."""

    def __init__(self, runner: asyncio.Runner, client: Client, kiosk: Kiosk) -> None:
        self.runner, self.client, self.kiosk = runner, client, kiosk
        self.offer = runner.run(good_offer())

    def post(self, sdp: str) -> tuple[int, str]:
        """The status and the error's reason; every place is free again when it returns."""
        return self.runner.run(self._post(sdp))

    async def _post(self, sdp: str) -> tuple[int, str]:
        answer = await self.client.post("/api/webrtc", json={"sdp": sdp})
        reason = (await answer.json()).get("error", {}).get("reason", "")
        async with asyncio.timeout(10):
            while self.kiosk.admission.taken or self.kiosk._tasks:
                await asyncio.sleep(0.01)
        assert not self.kiosk.visits
        return answer.status, reason


@pytest.fixture(scope="module")
def posted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posted]:
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setattr(webrtc, "_CONNECT_SECONDS", 0.02)
        stack = contextlib.AsyncExitStack()
        client, kiosk = runner.run(stack.enter_async_context(served(bundle)))
        yield Posted(runner, client, kiosk)
        runner.run(stack.aclose())


def test_a_good_offer_whose_peer_never_comes_gives_its_place_back(posted: Posted) -> None:
    assert posted.post(posted.offer) == (200, "")


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"a=mid:0\r\n", ""),
        (r"a=mid:0", "a=mid:1"),
        (r"a=group:BUNDLE 0", "a=group:BUNDLE 7"),
        (r"a=rtpmap:.*\r\n", ""),
        (r"a=rtpmap:99 H264/90000\r\n", ""),
        (r"a=rtpmap:(\d+) \w+", r"a=rtpmap:\1 nothing"),
        (r"m=video", "m=text"),
        (r"a=ice-ufrag:.*\r\n", ""),
        (r"a=fingerprint:.*\r\n", ""),
        (r"a=setup:actpass", "a=setup:nobody"),
        (r"(a=candidate:.*) \d+ typ", r"\1 70000 typ"),
        (r"(a=candidate:\S+) 1 udp", r"\1 1 udp" + 70 * r"\r\n\1 1 udp 1 ::1 9 typ host"),
        (r"m=audio", 9 * "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" + "m=audio"),
    ],
)
def test_an_offer_that_is_not_whole_gets_400_and_its_place_is_free_at_once(
    posted: Posted, pattern: str, replacement: str
) -> None:
    broken = re.sub(pattern, replacement, posted.offer)
    assert broken != posted.offer
    assert posted.post(broken) == (400, "bad-request")


def test_a_machine_without_ports_says_so_and_frees_the_place(posted: Posted, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none_left(self: RTCPeerConnection, *_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(RTCPeerConnection, "setLocalDescription", none_left)
    assert posted.post(posted.offer) == (503, "full")


def test_a_connection_whose_closing_fails_has_freed_its_place_before(
    posted: Posted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: RTCPeerConnection) -> None:
        raise AttributeError("no transport")

    monkeypatch.setattr(RTCPeerConnection, "close", broken)
    assert posted.post("v=0\r\n")[0] == 400
    assert posted.post(re.sub(r"a=ice-ufrag:.*\r\n", "", posted.offer))[0] == 400


def test_a_visit_that_breaks_off_frees_its_place_and_closes_its_ports(
    posted: Posted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: webrtc._Connection) -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(webrtc._Connection, "_first_end", broken)
    before = len(os.listdir("/proc/self/fd"))
    assert posted.post(posted.offer) == (200, "")
    assert len(os.listdir("/proc/self/fd")) <= before


def changed(data: st.DataObject, line: str) -> list[str]:
    at = data.draw(st.integers(0, len(line)))
    character = data.draw(st.characters(codec="utf-8"))
    number = data.draw(st.sampled_from(["0", "-1", "65536", "9" * 30]))
    edited = [line[:at], line[:at] + character + line[at + 1 :], re.sub(r"\d+", number, line)]
    return data.draw(st.sampled_from([[], [line, line], *([line] for line in edited)]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.integers(0, 10**6), min_size=1, max_size=3), data=st.data())
def test_no_mutated_offer_breaks_the_server_or_takes_a_place_for_good(
    posted: Posted, places: list[int], data: st.DataObject
) -> None:
    lines = posted.offer.split("\r\n")
    for place in places:
        at = place % max(1, len(lines))
        lines[at : at + 1] = changed(data, lines[at] if lines else "")
    assert posted.post("\r\n".join(lines)) in {(200, ""), (400, "bad-request")}
