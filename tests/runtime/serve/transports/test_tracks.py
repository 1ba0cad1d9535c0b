"""The two tracks of WebRTC, fed from frames that come when they come."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
from helpers.serving.kiosk_client import run

from rap_edge.runtime.serve.transports.tracks import BLOCK, RATE, Outlet
from rap_edge.runtime.session.chunk import Mark
from rap_edge.runtime.session.stream_core import StreamFrame

FPS = 25


async def frames(count: int, seconds: float = 0.0, pause_before: int = -1) -> AsyncIterator[StreamFrame]:
    for index in range(count):
        await asyncio.sleep(1.5 if index == pause_before else seconds)
        picture = np.full((16, 16, 3), index, np.uint8)
        yield StreamFrame(picture, np.full(RATE // FPS, index / count, np.float32), index / FPS, None, Mark.GOOD)


def test_both_tracks_carry_the_same_clock() -> None:
    async def scenario() -> None:
        sent: list[StreamFrame] = []
        outlet = Outlet(FPS, sent.append)
        await outlet.run(frames(6))
        pictures = [await outlet.picture.recv() for _ in range(6)]
        blocks = [await outlet.sound.recv() for _ in range(12)]
        assert [picture.pts for picture in pictures] == list(range(6))
        assert [block.pts for block in blocks] == [BLOCK * i for i in range(12)]
        assert {block.samples for block in blocks} == {BLOCK}
        assert [int(frame.picture[0, 0, 0]) for frame in sent] == list(range(6))
        outlet.picture.stop()
        outlet.sound.stop()

    run(scenario)


def test_timestamps_go_on_over_a_pause_and_stay_in_step() -> None:
    async def scenario() -> None:
        outlet = Outlet(FPS, lambda _: None)
        await outlet.run(frames(8, pause_before=4))
        pictures = [(await outlet.picture.recv()).time for _ in range(8)]
        blocks = [(await outlet.sound.recv()).time for _ in range(16)]
        assert pictures[4] - pictures[3] > 1.0
        assert abs(pictures[4] - blocks[8]) < 0.05

    run(scenario)


def test_a_sender_that_does_not_fetch_loses_the_oldest_and_holds_nothing_up() -> None:
    async def scenario() -> None:
        outlet = Outlet(1000, lambda _: None)
        await outlet.run(frames(60))
        assert (await outlet.picture.recv()).pts == 60 - 25

    run(scenario)
