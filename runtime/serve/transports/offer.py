"""What an offer must be before aiortc acts on it: there, some faults come to light only in a task of its own."""

from __future__ import annotations

from aiortc.sdp import SessionDescription

from ...errors import ServeError

_MOST_MEDIA = 8
_MOST_CANDIDATES = 64


def check_offer(sdp: str) -> None:
    """Refuse an offer that is not sound and picture from one peer.

    Raises:
        ServeError: media or candidates are too many, lack a name, or point nowhere.
        Exception: whatever aiortc's parser ends in where the text is no SDP.
    """
    offer = SessionDescription.parse(sdp)
    if not {"audio", "video"} <= {media.kind for media in offer.media}:
        raise ServeError("The offer lacks sound or picture; send an SDP that sends the one and receives both.")
    candidates = [candidate for media in offer.media for candidate in media.ice_candidates]
    if len(candidates) > _MOST_CANDIDATES:
        raise ServeError(f"The offer has more than {_MOST_CANDIDATES} candidates; send fewer.")
    if len(offer.media) > _MOST_MEDIA:
        raise ServeError(f"The offer has more than {_MOST_MEDIA} media; send one sound and one picture.")
    names = [media.rtp.muxId for media in offer.media]
    bundled = [name for group in offer.group if group.semantic == "BUNDLE" for name in group.items]
    if "" in names or len(set(names)) < len(names) or not set(bundled) <= set(names):
        raise ServeError("The offer's media have no names of their own (a=mid); use another browser.")
    if not all(media.dtls and media.dtls.fingerprints for media in offer.media):
        raise ServeError("The offer has no fingerprint of its certificate; use another browser.")
    if not all(0 < candidate.port < 1 << 16 for candidate in candidates):
        raise ServeError("The offer has a candidate without a port; use another browser.")
