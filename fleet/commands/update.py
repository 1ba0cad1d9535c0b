"""`rap-fleet update`: another bundle for a fleet that runs, box by box, without cutting a visitor off."""

from __future__ import annotations

import argparse
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from rap_edge.runtime.checks.bounds import shown
from rap_edge.runtime.errors import FleetError, first_line
from rap_edge.runtime.serve.http.names import origin_netloc

from ..command import Command

_OPERATOR_TOKEN = "RAP_FLEET_OPERATOR_TOKEN"
_SECONDS = 30.0


def _arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("--bundle", required=True, metavar="DIR", help="as the machines of the boxes see it")
    made.add_argument(
        "--at", default="http://127.0.0.1:8000", metavar="URL", help="the fleet (default: port 8000 of this machine)"
    )


def _run(arguments: argparse.Namespace) -> int:
    address = arguments.at.removesuffix("/")
    if origin_netloc(address) is None:
        raise FleetError(f"--at {shown(arguments.at)} is no address; write https://fleet.example.")
    token = os.environ.get(_OPERATOR_TOKEN)
    if not token:
        raise FleetError(f"Only an operator may change a fleet; set {_OPERATOR_TOKEN} to the fleet's own.")
    # A folder of this machine by its whole path; one that is not here is where the boxes are.
    bundle = str(Path(arguments.bundle).absolute()) if Path(arguments.bundle).is_dir() else arguments.bundle
    request = urllib.request.Request(
        f"{address}/api/fleet/bundle",
        json.dumps({"bundle": bundle}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            generation = json.load(answer)["generation"]
    except urllib.error.HTTPError as error:
        raise FleetError(_sentence(error)) from None
    except OSError as error:
        raise FleetError(f"The fleet at {address} does not answer ({first_line(error)}); check --at.") from None
    print(f"rap-fleet: boxes of generation {generation} take the places of the others, one after the other.")
    return 0


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The fleet answered with status {error.code}; try again."


COMMAND = Command("Change the bundle of a fleet that runs, box by box.", _arguments, _run)
