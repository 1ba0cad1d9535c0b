import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rap_edge.runtime.inputs.ring import SampleRing


class RingAgainstAList(RuleBasedStateMachine):
    """The ring behaves like a list that refuses what is beyond its capacity."""

    @initialize(capacity=st.integers(1, 40), channels=st.integers(1, 3))
    def start(self, capacity: int, channels: int) -> None:
        self.ring, self.capacity, self.channels = SampleRing(capacity, channels), capacity, channels
        self.expected: list[list[float]] = []
        self.sent = self.taken = self.dropped = 0

    @rule(count=st.integers(0, 100))
    def write(self, count: int) -> None:
        numbers = np.arange(self.sent, self.sent + count, dtype=np.float32)
        block = numbers[:, None] + np.arange(self.channels, dtype=np.float32) / 4
        room = self.capacity - len(self.expected)
        assert self.ring.write(block) == max(0, count - room)
        block[:] = -1  # the caller may use its block again
        kept = numbers[:room, None] + np.arange(self.channels, dtype=np.float32) / 4
        self.expected += kept.tolist()
        self.sent += count
        self.dropped += max(0, count - room)

    @rule(limit=st.none() | st.integers(0, 60))
    def read(self, limit: int | None) -> None:
        count = len(self.expected) if limit is None else min(limit, len(self.expected))
        out = self.ring.read(limit)
        assert out.dtype == np.float32
        assert out.shape == (count, self.channels)
        assert out.tolist() == self.expected[:count]
        del self.expected[:count]
        self.taken += count

    @invariant()
    def counters_add_up(self) -> None:
        if hasattr(self, "ring"):
            assert self.ring.taken == self.taken
            assert self.ring.written - self.ring.taken == len(self.expected)
            assert self.ring.written + self.ring.dropped == self.sent
            assert self.ring.dropped == self.dropped


RingAgainstAList.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRing = RingAgainstAList.TestCase


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that take turns every 10 us, in the middle of what they do, rather than every 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_two_threads_lose_and_reorder_nothing() -> None:
    ring, total = SampleRing(1000, 2), 300_000
    numbers = np.arange(total, dtype=np.float32)[:, None] + np.array([0, 0.5], np.float32)

    def produce() -> None:
        sizes, position = np.random.default_rng(0), 0
        while position < total:
            block = numbers[position : position + int(sizes.integers(1, 700))]
            position += len(block) - ring.write(block)

    producer = threading.Thread(target=produce)
    producer.start()
    received: list[np.ndarray] = []
    while ring.taken < total:
        received.append(ring.read())
    producer.join()
    assert np.array_equal(np.concatenate(received), numbers)


@pytest.mark.parametrize(("capacity", "channels"), [(0, 1), (1, 0), (-1, 1)])
def test_a_ring_without_room_is_refused(capacity: int, channels: int) -> None:
    with pytest.raises(ValueError, match="room"):
        SampleRing(capacity, channels)
