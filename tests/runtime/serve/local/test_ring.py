"""What is shared: one copy of every frame, never a torn one, and nothing that a reader could change."""

import fcntl
import mmap
import os
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from rap_edge.runtime.errors import ServeError
from rap_edge.runtime.serve.local import ring as ring_module
from rap_edge.runtime.serve.local.ring import SLOTS, FrameRing
from rap_edge.runtime.session.chunk import Mark
from rap_edge.runtime.session.stream_core import StreamFrame

SIZE, FPS, RATE = 64, 25, 16000


@pytest.fixture
def ring():
    opened = FrameRing((SIZE, SIZE), FPS, RATE)
    yield opened
    opened.close()


def frame(value: int = 0, **fields) -> StreamFrame:
    picture, sound = np.full((SIZE, SIZE, 3), value, np.uint8), np.full(RATE // FPS, value / 256, np.float32)
    return StreamFrame(
        **{"picture": picture, "sound": sound, "pts": 0.0, "utterance": None, "mark": Mark.GOOD} | fields
    )


def shared(ring: FrameRing) -> mmap.mmap:
    return mmap.mmap(ring.memory, os.fstat(ring.memory).st_size, prot=mmap.PROT_READ)


def test_the_header_says_where_everything_lies(ring: FrameRing) -> None:
    header = struct.unpack_from("<8s12I8xQ", shared(ring))
    magic, version, begin, slots, stride, height, width, channels, fps, rate, samples, picture, sound, frames = header
    assert (magic, version, slots, frames) == (b"RAPEDGE\0", 1, SLOTS, 0)
    assert (height, width, channels, fps, rate, samples) == (SIZE, SIZE, 3, FPS, RATE, RATE // FPS)
    assert begin % 64 == stride % 64 == picture % 64 == sound % 64 == 0
    assert picture + SIZE * SIZE * 3 <= sound
    assert sound + 4 * samples <= stride
    assert begin + slots * stride == len(shared(ring))


@pytest.mark.parametrize(("rate", "fps", "samples"), [(22050, 25, 882), (44100, 24, 1838), (8000, 240, 34)])
def test_a_slot_holds_the_longest_sound_of_a_frame(rate: int, fps: int, samples: int) -> None:
    ring = FrameRing((SIZE, SIZE), fps, rate)
    assert struct.unpack_from("<I", shared(ring), 44) == (samples,)
    ring.close()


def test_a_frame_is_there_with_all_that_belongs_to_it(ring: FrameRing) -> None:
    rng = np.random.default_rng(0)
    picture, sound = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8), rng.random(600, np.float32)
    for _ in range(SLOTS + 2):
        ring.publish(frame())
    assert ring.publish(frame(picture=picture, sound=sound, pts=1.25, utterance=7, mark=Mark.HELD)) == SLOTS + 2
    memory = shared(ring)
    _, _, begin, _, stride, *_, at_picture, at_sound, frames = struct.unpack_from("<8s12I8xQ", memory)
    at = begin + 2 * stride
    state, published, pts, utterance, mark, samples = struct.unpack_from("<QqdqII", memory, at)
    assert (state, pts, utterance, mark, samples, frames) == (2 * (SLOTS + 2) + 2, 1.25, 7, 2, 600, SLOTS + 3)
    assert published > 0
    assert memory[at + at_picture : at + at_picture + picture.size] == picture.tobytes()
    assert memory[at + at_sound : at + at_sound + 2400] == sound.tobytes()


def test_a_picture_is_copied_once_straight_from_the_stream_into_the_ring(
    ring: FrameRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []
    real = np.copyto
    monkeypatch.setattr(ring_module.np, "copyto", lambda to, of: (copied.append((to, of)), real(to, of)))
    given = frame(200)
    ring.publish(given)
    ((to, of),) = copied
    assert of is given.picture
    assert np.shares_memory(to, ring._slots)


def test_publishing_allocates_nothing_of_a_pictures_size() -> None:
    big = FrameRing((512, 512), FPS, 48000)
    given = StreamFrame(np.zeros((512, 512, 3), np.uint8), np.zeros(1920, np.float32), 0.0, None, Mark.GOOD)
    big.publish(given)
    tracemalloc.start()
    try:
        big.publish(given)
        assert tracemalloc.get_traced_memory()[1] < 4096
    finally:
        tracemalloc.stop()
        big.close()


def test_the_reader_can_neither_write_nor_resize_what_the_server_writes(ring: FrameRing) -> None:
    with pytest.raises(PermissionError):
        mmap.mmap(ring.memory, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(PermissionError):
        os.pwrite(ring.memory, b"x", 0)
    for size in (0, 1 << 30):
        with pytest.raises(PermissionError):
            os.ftruncate(ring.memory, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(ring.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_a_bell_that_nobody_hears_does_not_stop_the_server(ring: FrameRing) -> None:
    os.eventfd_write(ring.bell, (1 << 64) - 2)
    assert [ring.publish(frame()) for _ in range(3)] == [0, 1, 2]


def test_memory_that_is_missing_is_a_sentence_and_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ServeError, match="close other programs"):
        FrameRing((SIZE, SIZE), FPS, RATE)
    assert len(os.listdir("/proc/self/fd")) == len(before)


READER = """
import mmap, os, struct, sys
import numpy as np
memory = mmap.mmap(int(sys.argv[1]), os.fstat(int(sys.argv[1])).st_size, prot=mmap.PROT_READ)
_, _, begin, slots, stride, h, w, c, *_, picture, sound, _ = struct.unpack_from("<8s12I8xQ", memory)
print("ready", flush=True)
last = whole = torn = 0
while last < 3000:
    frames = struct.unpack_from("<Q", memory, 64)[0]
    # The one that is overwritten next.
    number = max(frames - slots, 0) if frames < 3000 else frames - 1
    at = begin + number % slots * stride
    if frames == 0 or struct.unpack_from("<Q", memory, at)[0] != 2 * number + 2:
        continue
    pixels = np.frombuffer(memory[at + picture : at + picture + h * w * c], np.uint8)
    if struct.unpack_from("<Q", memory, at)[0] != 2 * number + 2:
        continue
    whole += 1
    torn += not (pixels == number % 251).all()
    last = frames
print(whole, torn)
"""


def test_a_reader_in_another_process_never_takes_a_torn_frame_for_a_whole_one() -> None:
    ring = FrameRing((256, 256), FPS, RATE)
    os.set_inheritable(ring.memory, True)
    command = [sys.executable, "-c", READER, str(ring.memory)]
    reader = subprocess.Popen(command, close_fds=False, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    pictures = [frame(picture=np.full((256, 256, 3), value, np.uint8)) for value in range(251)]
    for number in range(3000):
        ring.publish(pictures[number % 251])
    out, _ = reader.communicate(timeout=20)
    ring.close()
    whole, torn = map(int, out.split())
    assert torn == 0
    assert whole > 0
