import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.runtime.session.sample_buffer import SampleBuffer

WINDOW, CHUNK = 50, 20


@given(st.lists(st.integers(0, 300), max_size=30))
def test_windows_are_those_of_the_whole_signal_however_it_was_split(sizes: list[int]) -> None:
    signal = np.arange(1, sum(sizes) + 1, dtype=np.float32)
    padded = np.concatenate([np.zeros(WINDOW, np.float32), signal])
    buffer, out, position, chunk = SampleBuffer(WINDOW), np.empty(WINDOW, np.float32), 0, 0
    for size in sizes:
        buffer.append(signal[position : position + size])
        position += size
        assert buffer.end == position
        while (chunk + 1) * CHUNK <= position:
            stop = (chunk + 1) * CHUNK
            buffer.read(stop - WINDOW, stop, out)
            assert np.array_equal(out, padded[stop : stop + WINDOW])
            buffer.drop_before(stop)
            chunk += 1


def test_what_is_not_there_yet_reads_as_silence() -> None:
    buffer, out = SampleBuffer(WINDOW), np.full(WINDOW, 9, np.float32)
    buffer.append(np.ones(5, np.float32))
    buffer.read(0, 20, out)
    assert np.array_equal(out[:20], [1] * 5 + [0] * 15)


def test_memory_stays_constant_while_streaming_and_after_a_burst() -> None:
    buffer = SampleBuffer(WINDOW)
    buffer.append(np.ones(100_000, np.float32))
    for stop in range(CHUNK, 200_000, CHUNK):
        if stop > 100_000:
            buffer.append(np.ones(CHUNK, np.float32))
        buffer.drop_before(stop)
    assert buffer._samples.size <= 4 * WINDOW
