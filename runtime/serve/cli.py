"""`rap-serve`: the kiosk page over a bundle."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..checks.bounds import argument
from ..cli.arguments import add_model, add_portrait_use, require_model
from ..cli.exit_status import exit_status
from ..cli.extras import needs_extra
from .settings import DRAIN, SHARE, Settings
from .transports.ice import IceServer, parse_ice_servers, read_ice_file, readable_by_all

_TOKEN = "RAP_SERVE_TOKEN"
_ICE_SERVERS = "RAP_SERVE_ICE_SERVERS"
# Secrets of an operator, which a dispatcher shares; of the environment alone.
TICKET_KEY, OPERATOR_TOKEN = "RAP_SERVE_TICKET_KEY", "RAP_SERVE_OPERATOR_TOKEN"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        0 stopped by SIGINT or SIGTERM; 2 something is wrong, said in one sentence on stderr; 130 either while loading.
    """
    return exit_status("rap-serve", lambda: _start(argv), "Stopped.")


def _start(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    require_model(parser, arguments)
    return _run(arguments)


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="rap-serve",
        description="Serve a page on which a portrait speaks with the visitor's voice.",
        epilog="Needs the extra: pip install 'rap-edge[serve]'. Everything about it is in docs/serve.md.",
    )
    add_model(parser)
    parser.add_argument("--host", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, help=f"TCP port (default: {defaults.port})")
    parser.add_argument(
        "--unix",
        metavar="PATH",
        type=Path,
        help="a socket for programs of this machine, which get frames in shared memory; "
        "the page is then served only if --host or --port is given",
    )
    parser.add_argument(
        "--token", help=f"secret that opens the kiosk, needed for other hosts (better: {_TOKEN} in the environment)"
    )
    parser.add_argument(
        "--portrait", metavar="IMG", action="append", default=[], help="picture to choose from; may be repeated"
    )
    add_portrait_use(parser)
    parser.add_argument("--max-sessions", type=int, metavar="N", help="visitors at a time (default: measured)")
    parser.add_argument(
        "--latency", type=float, metavar="S", help="longest chunk; shorter ones cost more (default: the model's own)"
    )
    parser.add_argument(
        "--idle-seconds", type=float, metavar="S", default=defaults.idle_seconds, help="silence that ends a session"
    )
    parser.add_argument(
        "--origin", metavar="URL", action="append", default=[], help="further origin whose pages are served"
    )
    parser.add_argument("--ice-server", metavar="URL", action="append", default=[], help="STUN server")
    parser.add_argument(
        "--ice-file",
        metavar="JSON",
        type=Path,
        help=f"STUN and TURN servers with user and password or secret (or their JSON in {_ICE_SERVERS})",
    )
    parser.add_argument(
        "--drain",
        type=argument(DRAIN),
        default=defaults.drain,
        metavar="S",
        help="after SIGTERM take nobody new, and let visitors stay for so long (default: not at all)",
    )
    parser.add_argument(
        "--share",
        type=argument(SHARE),
        default=defaults.share,
        metavar="F",
        help="part of the machine or GPU that this server may use (default: all of it)",
    )
    parser.add_argument("--public-url", metavar="URL", help="where visitors come to (default: where it listens)")
    parser.add_argument("--tls-cert", metavar="PEM", type=Path, help="certificate; browsers want HTTPS for other hosts")
    parser.add_argument("--tls-key", metavar="PEM", type=Path, help="its key")
    return parser


@needs_extra("serve")
def _run(arguments: argparse.Namespace) -> int:
    defaults = Settings()
    page = arguments.unix is None or arguments.host is not None or arguments.port is not None
    port = defaults.port if arguments.port is None else arguments.port
    settings = Settings(
        host=defaults.host if arguments.host is None else arguments.host,
        port=port if page else None,
        unix=arguments.unix,
        drain=arguments.drain,
        share=arguments.share,
        public_url=arguments.public_url,
        ticket_key=os.environ.get(TICKET_KEY) or None,
        operator_token=os.environ.get(OPERATOR_TOKEN) or None,
        token=arguments.token or os.environ.get(_TOKEN) or None,
        portraits=tuple(map(Path, arguments.portrait)),
        strict_portraits=arguments.strict_portrait,
        crop=arguments.crop,
        max_sessions=arguments.max_sessions,
        engine=arguments.engine,
        fallback=arguments.fallback,
        latency=arguments.latency,
        idle_seconds=arguments.idle_seconds,
        origins=tuple(arguments.origin),
        ice_servers=_ice_servers(arguments),
        certificate=arguments.tls_cert,
        key=arguments.tls_key,
    )
    settings.validate()
    from .log import log_to_stderr
    from .server import open_kiosk, serve

    log_to_stderr("rap-serve")

    print("rap-serve: loading the model and measuring this machine ...", file=sys.stderr)
    kiosk = open_kiosk(arguments.bundle, settings)
    for note in kiosk.notes:
        print(f"rap-serve: {note}", file=sys.stderr)
    places, rtf = kiosk.admission.places, kiosk.rtf
    print(
        f"rap-serve: real-time factor {rtf:.2f}, {places} {'visitor' if places == 1 else 'visitors'} at a time.",
        file=sys.stderr,
    )
    if rtf > 1 or (settings.max_sessions or 0) * rtf > 1:
        print("rap-serve: That is more than this machine can render in real time.", file=sys.stderr)
    if settings.ticket_key is not None:
        print("rap-serve: visitors are let in by a dispatcher's tickets alone.", file=sys.stderr)
    token = "?token=<the token>" if settings.token else ""

    def ready(address: str | None) -> None:
        if settings.unix is not None:
            print(f"rap-serve: local clients connect to {settings.unix}", flush=True)
        if address is not None:
            print(f"rap-serve: open {address}{token}", flush=True)

    asyncio.run(serve(kiosk, ready))
    return 0


def _ice_servers(arguments: argparse.Namespace) -> tuple[IceServer, ...]:
    """Those of the command line, the file and the environment."""
    servers = tuple(IceServer((url,)) for url in arguments.ice_server)
    if arguments.ice_file is not None:
        servers += read_ice_file(arguments.ice_file)
        if readable_by_all(arguments.ice_file):
            path = shlex.quote(str(arguments.ice_file))
            print(f"rap-serve: every user of this machine can read the passwords: chmod 600 {path}", file=sys.stderr)
    if text := os.environ.get(_ICE_SERVERS):
        servers += parse_ice_servers(text, _ICE_SERVERS)
    return servers


if __name__ == "__main__":
    sys.exit(main())
