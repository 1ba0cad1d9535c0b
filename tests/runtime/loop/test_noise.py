import numpy as np

from rap_edge.runtime.loop.noise import normal, philox


def words(counter: list[int], key: tuple[int, int]) -> list[int]:
    return [int(word) for word in philox(tuple(np.uint64(c) for c in counter), key)]


def test_philox_gives_the_published_known_answers() -> None:
    ones = 0xFFFFFFFF
    assert words([0, 0, 0, 0], (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert words([ones] * 4, (ones, ones)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_noise_is_standard_normal() -> None:
    noise = normal((200_000,), seed=7, chunk=3, draw=1).astype(np.float64)
    moments = [np.mean(noise), np.mean(noise**2), np.mean(noise**3), np.mean(noise**4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.05)


def test_noise_depends_on_seed_chunk_and_draw_and_on_nothing_else() -> None:
    base = normal((4, 5), 1, 2, 3)
    assert np.array_equal(base, normal((4, 5), 1, 2, 3))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (1 + (1 << 40), 2, 3), (1, 2 + (1 << 40), 3)):
        assert not np.array_equal(base, normal((4, 5), *other))


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    assert np.array_equal(normal((10,), 0, 0, 0), normal((1000,), 0, 0, 0)[:10])
