"""A kiosk: whoever speaks into the microphone sees the avatar say it, in a full-screen window.

    python examples/kiosk.py build/nano-fp32 [PORTRAIT]

Needs the extras `mic` and `window`.
"""

from __future__ import annotations

import sys

from rap_edge.runtime import Avatar, Loudspeaker, Microphone, RapEdgeError, Window, play


def main(bundle: str, portrait: str | None = None) -> None:
    with Avatar.open(bundle, portrait) as avatar, Microphone() as microphone:
        window, speaker = Window(avatar.spec.image_size, full_screen=True), Loudspeaker()
        try:
            # Sound and picture stay together, and a machine that is too slow shows less instead of later.
            times = play(avatar, microphone, speaker, window)
        finally:
            speaker.close()
            window.close()
    for name, value in times.rows():
        print(f"{name:<17} {value}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RapEdgeError as error:
        sys.exit(f"kiosk: {error}")
