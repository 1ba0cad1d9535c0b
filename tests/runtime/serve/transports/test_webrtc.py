"""The WebRTC path from the other end: a peer of aiortc's own takes the browser's part."""

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.serving.kiosk_client import run, served
from helpers.serving.webrtc_peer import Peer, Voice, connected

from rap_edge.runtime.serve.transports import webrtc


class _AnySentence:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.endswith(".")


ANY_SENTENCE = _AnySentence()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


async def until_free(kiosk, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while kiosk.admission.taken:
            await asyncio.sleep(0.02)


def test_the_voice_comes_back_with_a_picture_that_follows_it(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk), connected(client) as peer:
            brightness, loudness = {}, {}

            async def watch() -> None:
                while True:
                    frame = await peer.tracks["video"].recv()
                    brightness[frame.time] = frame.to_ndarray(format="gray").mean()

            async def hear() -> None:
                while True:
                    frame = await peer.tracks["audio"].recv()
                    loudness[frame.time] = np.abs(frame.to_ndarray().astype(float)).mean()

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(7):
                    await asyncio.gather(watch(), hear())
            assert len(brightness) > 100
            assert len(loudness) > 200
            # The tiny model's picture is bright where its own sound is loud.
            assert np.ptp(list(brightness.values())) > 10
            assert max(loudness.values()) > 1000
            figures = [message for message in peer.messages if message["type"] == "stats" and message["latency_ms"]]
            assert 300 < figures[-1]["latency_ms"] < 5000
            assert len(kiosk.visits) == 1

    run(scenario)


def test_a_visitor_interrupts_over_the_data_channel_and_nonsense_there_ends_nothing(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk), connected(client) as peer:
            await peer.told(type="utterance", event="started", utterance=0)
            peer.channel.send('{"type": "interrupt"}')
            cut = await peer.told(type="utterance", event="interrupted", utterance=0)
            assert 0 <= cut["played_ms"] < 5000
            for nonsense in ("hello", "[]", '{"type": "dance"}', "x" * 5000, b"\xff\0"):
                peer.channel.send(nonsense)
            notice = await peer.told(type="notice")
            assert (notice["reason"], notice["message"]) == ("unknown-message", ANY_SENTENCE)
            await peer.told(type="utterance", event="started", utterance=1)
            assert len(kiosk.visits) == 1
            peer.channel.send('{"type": "finish"}')
            assert (await peer.told(type="end"))["reason"] == "finished"

    run(scenario)


def test_leaving_frees_the_place_before_it_is_answered(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk), connected(client) as peer:
            assert kiosk.admission.taken == 1
            assert (await client.delete(f"/api/webrtc/{peer.session}")).status == 204
            assert kiosk.admission.taken == 0
            assert (await client.delete(f"/api/webrtc/{peer.session}")).status == 204

    run(scenario)


def test_a_peer_that_closes_is_noticed(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            async with connected(client) as peer:
                async with asyncio.timeout(10):
                    while peer.connection.connectionState != "connected":
                        await asyncio.sleep(0.02)
            await until_free(kiosk)

    run(scenario)


def test_a_peer_that_never_connects_is_given_up(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webrtc, "_CONNECT_SECONDS", 0.3)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            peer.addTransceiver(Voice(), direction="sendrecv")
            peer.addTransceiver("video", direction="recvonly")
            await peer.setLocalDescription(await peer.createOffer())
            answer = await client.post("/api/webrtc", json={"sdp": peer.localDescription.sdp})
            await peer.close()
            assert answer.status == 200
            await until_free(kiosk)

    run(scenario)


def offered(sdp: str, addresses: str) -> dict[str, str]:
    """An offer from a browser that tells `addresses` in place of its own."""
    return {"sdp": re.sub(r"(a=candidate:\S+ \d udp \d+) \S+", rf"\1 {addresses}", sdp)}


async def made_offer(peer: RTCPeerConnection) -> str:
    peer.addTransceiver(Voice(), direction="sendrecv")
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    return peer.localDescription.sdp


def test_a_browser_whose_hidden_address_nobody_can_resolve_finds_the_kiosk_itself(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            offer = offered(await made_offer(peer), "0f7d1c1a-2f5e-4d6e-9a50-3a3c34f3f1b2.local")
            assert "a=end-of-candidates" in offer["sdp"]
            answer = await (await client.post("/api/webrtc", json=offer)).json()
            await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
            async with asyncio.timeout(10):
                while peer.connectionState != "connected":
                    await asyncio.sleep(0.02)
            await peer.close()

    run(scenario)


def test_a_browser_that_gives_up_before_the_answer_leaves_its_place(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long after the browser, which takes another path.
    monkeypatch.setattr(webrtc, "_CONNECT_SECONDS", 60.0)
    gather = webrtc.RTCPeerConnection.setLocalDescription
    gathering = asyncio.Event()

    async def slowly(peer: RTCPeerConnection, description: RTCSessionDescription) -> None:
        gathering.set()
        await asyncio.sleep(0.5)
        await gather(peer, description)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            offer = {"sdp": await made_offer(peer)}
            monkeypatch.setattr(webrtc.RTCPeerConnection, "setLocalDescription", slowly)
            posting = asyncio.ensure_future(client.post("/api/webrtc", json=offer))
            await gathering.wait()
            assert kiosk.admission.taken == 1
            posting.cancel()
            await until_free(kiosk)
            await peer.close()

    run(scenario)


def test_silence_and_switching_off_are_told_over_the_data_channel(bundle: Path) -> None:
    async def told(peer: Peer, reason: str) -> None:
        async with asyncio.timeout(15):
            while {"end"} != {message["type"] for message in peer.messages[-1:]}:
                await asyncio.sleep(0.02)
        assert peer.messages[-1]["reason"] == reason

    async def idle() -> None:
        async with served(bundle, idle_seconds=0.01) as (client, kiosk), connected(client) as peer:
            await told(peer, "idle")
            await until_free(kiosk)

    async def stopping() -> None:
        async with served(bundle) as (client, kiosk), connected(client) as peer:
            async with asyncio.timeout(10):
                while not peer.messages:
                    await asyncio.sleep(0.02)
            await kiosk.stop()
            await told(peer, "stopping")

    run(idle)
    run(stopping)
