"""`rap-fleet serve`: one address for visitors, who are placed on as many boxes as there are."""

from __future__ import annotations

import argparse
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.checks.bounds import Whole, argument, shown
from rap_edge.runtime.cli.extras import needs_extra
from rap_edge.runtime.cli.progress import say
from rap_edge.runtime.errors import FleetError
from rap_edge.runtime.machine.available import available_cores
from rap_edge.runtime.serve.http.names import is_loopback, origin_netloc

from ..cluster import opened_cluster
from ..command import Command
from ..serve.order import BOXES, CORES, DRAIN, GPU_SHARE

_PORT = Whole(1, 65535)
_LOOK_SECONDS = 0.5


def _arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("--bundle", required=True, metavar="DIR", help="as the machines of the boxes see it")
    made.add_argument("--boxes", type=argument(BOXES), default=2, metavar="N", help="boxes at least (default: 2)")
    made.add_argument(
        "--most-boxes", type=argument(BOXES), metavar="N", help="boxes at most, when places run out (default: --boxes)"
    )
    made.add_argument(
        "--address", metavar="RAY", help="a cluster that is there, as Ray names it (default: this machine alone)"
    )
    made.add_argument("--gpu-share", type=argument(GPU_SHARE), default=0.0, metavar="F", help="part of a GPU of a box")
    made.add_argument(
        "--cores", type=argument(CORES), metavar="N", help="cores of a box (default: this machine's, divided)"
    )
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    made.add_argument("--port", type=argument(_PORT), default=8000, help="TCP port (default: 8000)")
    made.add_argument("--public-url", metavar="URL", help="where visitors open the page (default: host and port)")
    made.add_argument("--box-host", metavar="HOST", help="address of the boxes (default: as far as --host goes)")
    made.add_argument(
        "--box-port", type=argument(_PORT), default=0, metavar="N", help="port of a machine's first box (default: any)"
    )
    made.add_argument(
        "--box-url", metavar="URL", help="where visitors come to a box, with {host}, {name} and {port} (default: there)"
    )
    made.add_argument(
        "--drain",
        type=argument(DRAIN),
        default=600.0,
        metavar="S",
        help="seconds for which visitors stay at a box that is replaced (default: 600)",
    )
    made.add_argument("--tls-cert", metavar="PEM", type=Path, help="certificate of the page and the boxes")
    made.add_argument("--tls-key", metavar="PEM", type=Path, help="its key")
    made.add_argument("words", nargs="*", metavar="-- WORDS", help="what follows is for every rap-serve")


def _run(arguments: argparse.Namespace) -> int:
    scheme = "http" if arguments.tls_cert is None else "https"
    origin = (arguments.public_url or f"{scheme}://{arguments.host}:{arguments.port}").removesuffix("/")
    _check(arguments, origin)
    alone = arguments.address is None
    if alone:
        Bundle.open(arguments.bundle)
    cores = arguments.cores
    if cores is None and alone and not arguments.gpu_share:
        cores = max(1, available_cores() // (arguments.most_boxes or arguments.boxes))
    say("rap-fleet: starting Ray ..." if alone else "rap-fleet: joining the cluster ...")
    with opened_cluster(arguments.address, available_cores()):
        with needs_extra("fleet"):
            from ..serve.application import Fleet
            from ..serve.running import Listening, running, wait_for_signal
        tls = _tls(arguments)
        fleet = Fleet(
            bundle=os.path.abspath(arguments.bundle) if alone else arguments.bundle,
            boxes=arguments.boxes,
            most_boxes=arguments.most_boxes,
            words=(*arguments.words, *tls),
            host=arguments.host,
            origin=origin,
            box_host=arguments.box_host or ("127.0.0.1" if is_loopback(arguments.host) else None),
            box_port=arguments.box_port,
            box_url=arguments.box_url,
            drain=arguments.drain,
            gpu_share=arguments.gpu_share,
            cores=cores,
            counted=not alone,
        )
        listening = Listening(arguments.host, arguments.port, *tls[1::2])
        with running(fleet, listening):
            try:
                _wait_until_up(origin if arguments.public_url is None else f"{scheme}://127.0.0.1:{arguments.port}")
                token = "?token=<the token>" if os.environ.get("RAP_FLEET_TOKEN") else ""
                print(f"rap-fleet: open {origin}/{token}", flush=True)
                wait_for_signal()
            except KeyboardInterrupt:
                say("rap-fleet: stopping the boxes ...")
    return 0


def _check(arguments: argparse.Namespace, origin: str) -> None:
    if not is_loopback(arguments.host) and not os.environ.get("RAP_FLEET_TOKEN"):
        raise FleetError(f"Host {arguments.host!r} lets other machines in, so a token is needed; set RAP_FLEET_TOKEN.")
    if origin_netloc(origin) is None:
        raise FleetError(f"--public-url {shown(origin)} is no address; write https://fleet.example.")
    if (arguments.most_boxes or arguments.boxes) < arguments.boxes:
        raise FleetError(f"--most-boxes is fewer than the {arguments.boxes} boxes at least; make it larger.")
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise FleetError("A certificate and its key belong together; pass both --tls-cert and --tls-key.")
    if arguments.box_url is not None:
        try:
            arguments.box_url.format(host="host", name="name", port=1)
        except (KeyError, IndexError, ValueError):
            raise FleetError(
                f"--box-url {shown(arguments.box_url)} may have {{host}}, {{name}} and {{port}} alone."
            ) from None
        if "{port}" in arguments.box_url and not arguments.box_port:
            raise FleetError("--box-url names a port, so the boxes need one that is known before; pass --box-port.")


def _tls(arguments: argparse.Namespace) -> tuple[str, ...]:
    if arguments.tls_cert is None:
        return ()
    return ("--tls-cert", str(arguments.tls_cert.absolute()), "--tls-key", str(arguments.tls_key.absolute()))


def _wait_until_up(address: str) -> None:
    """Until a box takes visitors; says what keeps one from it."""
    said = ""
    while True:
        failure = _failure(address)
        if failure is None:
            return
        if failure and failure != said:
            say(f"rap-fleet: A box could not be started: {failure}")
            said = failure
        time.sleep(_LOOK_SECONDS)


def _failure(address: str) -> str | None:
    """What keeps boxes from being up, "" while nothing is known; None once one is."""
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=10) as answer:
            answer.read()
            return None
    except urllib.error.HTTPError as error:
        try:
            return str(json.loads(error.read()).get("failure", ""))
        except ValueError:
            return ""
    except OSError:
        return ""


COMMAND = Command("Serve visitors on many boxes, on this machine or a cluster.", _arguments, _run)
