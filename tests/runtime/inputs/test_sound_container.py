"""Sound files from anybody: what is opened, and that nothing but a sentence comes of the rest."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.media.sound_files import write_sound
from helpers.places import DATA

from rap_edge.runtime.errors import AudioError
from rap_edge.runtime.inputs.audio_file import AudioFile, read_audio
from rap_edge.runtime.inputs.sound_container import BUNDLE_CONTAINERS, CONTAINERS

TONE = (0.5 * np.sin(np.arange(4800) / 10)).astype(np.float32)[:, None]
# Files of every kind that is read: suffix, codec and sample format.
KINDS = [
    ("aac", "aac", "fltp"),
    ("aiff", "pcm_s16be", "s16"),
    ("au", "pcm_mulaw", "s16"),
    ("flac", "flac", "s16"),
    ("mp3", "libmp3lame", "fltp"),
    ("mp2", "mp2", "s16"),
    ("m4a", "aac", "fltp"),
    ("mov", "alac", "s16p"),
    ("ogg", "libopus", "flt"),
    ("oga", "flac", "s16"),
    ("w64", "pcm_s16le", "s16"),
    ("wav", "adpcm_ms", "s16"),
    ("webm", "libopus", "flt"),
    ("mka", "eac3", "fltp"),
]
PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:{target}\n#EXT-X-ENDLIST\n",
    "live hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="0" bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "meta": ";FFMETADATA1\ntitle={target}\n",
}


def wave(path: Path) -> Path:
    return write_sound(path, TONE, 16000, "pcm_s16le", "s16", "wav")


def refused(path: Path, match: str, containers: tuple[str, ...] = CONTAINERS) -> None:
    with pytest.raises(AudioError, match=match) as caught, AudioFile(path, containers) as file:
        list(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("suffix", "codec", "sample_format"), KINDS, ids=[f"{kind[0]}-{kind[1]}" for kind in KINDS])
def test_common_sound_files_are_known_by_their_content(
    tmp_path: Path, suffix: str, codec: str, sample_format: str
) -> None:
    made = write_sound(tmp_path / f"a.{suffix}", np.repeat(TONE, 10, axis=0), 48000, codec, sample_format)
    with read_audio(made.rename(tmp_path / "speech.txt")) as file:
        assert sum(map(len, file)) == pytest.approx(48000, abs=2500)
        assert file.rate == 48000


@pytest.mark.parametrize("name", ["list.m3u8", "speech.wav"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_opens_no_other_file_whatever_it_is_called(tmp_path: Path, kind: str, name: str) -> None:
    target = wave(tmp_path / "private.wav")
    playlist = tmp_path / name
    playlist.write_text(PLAYLISTS[kind].format(target=target))
    refused(playlist, "kind that is not read|cannot be read as audio")


def test_a_playlist_of_a_pipe_does_not_wait_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless.ts")
    (tmp_path / "live.wav").write_text(PLAYLISTS["live hls"].format(target=tmp_path / "endless.ts"))
    refused(tmp_path / "live.wav", "kind that is not read|cannot be read as audio")
    refused(tmp_path / "endless.ts", "not a file")


@pytest.mark.parametrize(
    ("suffix", "codec", "sample_format"),
    [("caf", "pcm_s16be", "s16"), ("adx", "adpcm_adx", "s16"), ("avi", "mp2", "s16")],
)
def test_formats_whose_readers_are_fragile_are_not_opened(
    tmp_path: Path, suffix: str, codec: str, sample_format: str
) -> None:
    made = write_sound(tmp_path / f"a.{suffix}", TONE, 16000, codec, sample_format)
    refused(made.rename(tmp_path / "speech.wav"), r"kind that is not read; .*ffmpeg -i FILE speech\.wav\.$")


def test_rare_codecs_in_a_common_file_are_not_decoded(tmp_path: Path) -> None:
    refused(write_sound(tmp_path / "a.wav", TONE, 16000, "g722", "s16"), "no audio that can be decoded")


@pytest.mark.parametrize("suffix", ["caf", "ogg", "au", "webm"])
def test_a_damaged_file_is_refused_in_a_sentence(suffix: str) -> None:
    refused(DATA / f"damaged.{suffix}", "kind that is not read|cannot be read as audio")


def test_a_cut_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.ogg", TONE, 48000, "libopus", "flt")
    path.write_bytes(path.read_bytes()[:60])
    refused(path, "cannot be read as audio")


def test_what_a_bundle_brings_is_wav_or_flac(tmp_path: Path) -> None:
    flac = write_sound(tmp_path / "a.flac", TONE, 16000, "flac", "s16")
    for path in (wave(tmp_path / "a.wav"), flac):
        with AudioFile(path, BUNDLE_CONTAINERS) as file:
            assert sum(map(len, file)) == 4800
    mp3 = write_sound(tmp_path / "a.mp3", TONE, 16000, "libmp3lame", "fltp")
    refused(mp3, r"pass a sound file \(flac, wav\)", BUNDLE_CONTAINERS)


@pytest.mark.parametrize(("suffix", "codec", "sample_format"), [("m4a", "aac", "fltp"), ("ogg", "libopus", "flt")])
def test_eight_channels_that_a_codec_keeps_apart_stay_apart(
    tmp_path: Path, suffix: str, codec: str, sample_format: str
) -> None:
    pcm = np.zeros((48000, 8), np.float32)
    pcm[:, 0], pcm[:, 7] = TONE[np.arange(48000) % 4800, 0], 0.5 * TONE[np.arange(48000) % 4800, 0]
    with read_audio(write_sound(tmp_path / f"a.{suffix}", pcm, 48000, codec, sample_format)) as file:
        loudness = np.concatenate(list(file))[2000:-2000].std(axis=0)
    assert file.channels == 8
    assert loudness == pytest.approx(pcm.std(axis=0), abs=0.02)
