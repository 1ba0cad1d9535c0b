"""Opens sound files that may come from anybody: named containers and codecs only, told by content and not by name.

FFmpeg's libraries open whatever they recognise: playlists (HLS, DASH, concat) then read other files or wait for a live
stream, and rare formats (CAF, ADX) can end the process. In: a path. Out: an open PyAV container; all that goes wrong
with it is an `AudioError`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AudioError, first_line

if TYPE_CHECKING:
    from av import AudioStream
    from av.container import InputContainer

# FFmpeg's names of demuxers; "mp4" covers m4a, mov and 3gp, "webm" all of Matroska, "mp3" mp2 too.
CONTAINERS = ("aac", "aiff", "amr", "au", "flac", "mp3", "mp4", "ogg", "w64", "wav", "webm")
# What a bundle may bring.
BUNDLE_CONTAINERS = ("flac", "wav")
# FFmpeg's names of decoders.
_PCM = ("alaw", "f32be", "f32le", "f64be", "f64le", "mulaw", "s16be", "s16le", "s24be", "s24le", "s32be", "s32le")
_CODECS = (
    *(f"pcm_{form}" for form in (*_PCM, "s8", "u8")),
    *("aac", "ac3", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "alac", "amrnb", "amrwb", "eac3", "flac"),
    *("mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "opus", "speex", "vorbis"),
)


def open_sound(path: str | Path, containers: tuple[str, ...] = CONTAINERS) -> tuple[InputContainer, AudioStream]:
    """Open a regular file that is of one of `containers`, and choose its best audio stream.

    Raises:
        AudioError: missing, empty, no regular file, of another kind, damaged, or without audio that is read.
    """
    import av

    cure = f"pass a sound file ({', '.join(containers)}), or make one with: ffmpeg -i FILE speech.wav"
    limits = {
        "format_whitelist": ",".join(containers),
        "codec_whitelist": ",".join(_CODECS),
        "protocol_whitelist": "file",
    }
    try:
        if not Path(path).exists():
            raise AudioError(f"{str(path)!r} does not exist; pass a sound file.")
        if not Path(path).is_file():
            raise AudioError(f"{str(path)!r} is not a file; pass a sound file.")
        if Path(path).stat().st_size == 0:
            raise AudioError(f"{str(path)!r} is empty; pass a sound file.")
        # A name with a colon is still a file's name.
        container: InputContainer = av.open(f"file:{path}", options=limits, **_lenient_about_titles())
    except av.error.ArgumentError:
        raise AudioError(f"{str(path)!r} is of a kind that is not read; {cure}.") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise AudioError(f"{str(path)!r} cannot be read as audio ({reason}); {cure}.") from None
    stream = container.streams.best("audio")
    # A stream of a codec that nobody knows has no context.
    codec = getattr(stream, "codec_context", None)
    if not isinstance(stream, av.AudioStream) or codec is None or codec.name not in _CODECS:
        container.close()
        raise AudioError(f"{str(path)!r} holds no audio that can be decoded; {cure}.")
    return container, stream


def _lenient_about_titles() -> dict[str, Any]:
    """PyAV 18 refuses a file whose title is not UTF-8 unless told otherwise; PyAV 19 never does and cannot be told."""
    from av.container import InputContainer

    return {"metadata_errors": "ignore"} if hasattr(InputContainer, "metadata_errors") else {}
