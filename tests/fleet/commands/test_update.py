from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rap_edge.fleet.cli import main

TOKEN = "the-operators-own-token"


class Answering(BaseHTTPRequestHandler):
    asked: tuple[str, dict, str | None]
    answer = (202, {"generation": 4})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked = self.path, body, self.headers["Authorization"]
        status, told = self.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("RAP_FLEET_OPERATOR_TOKEN", TOKEN)
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_operator_tells_a_fleet_its_new_bundle(fleet: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    assert main(["update", "--bundle", "new", "--at", fleet + "/"]) == 0
    assert Answering.asked == ("/api/fleet/bundle", {"bundle": str(tmp_path / "new")}, f"Bearer {TOKEN}")
    assert "generation 4" in capsys.readouterr().out
    # What only the machines of the boxes see is left as it is.
    assert main(["update", "--bundle", "/there/new", "--at", fleet]) == 0
    assert Answering.asked[1] == {"bundle": "/there/new"}


def test_what_goes_wrong_is_a_sentence(fleet: str, capsys, monkeypatch) -> None:
    for answer, said in (
        ((401, {"error": {"message": "Only the operator may ask for this."}}), "Only the operator"),
        ((500, {}), "status 500"),
    ):
        monkeypatch.setattr(Answering, "answer", answer)
        assert main(["update", "--bundle", "new", "--at", fleet]) == 2
        assert said in capsys.readouterr().err
    assert main(["update", "--bundle", "new", "--at", "fleet"]) == 2
    assert "--at" in capsys.readouterr().err
    assert main(["update", "--bundle", "new", "--at", "http://127.0.0.1:1"]) == 2
    assert "does not answer" in capsys.readouterr().err
    monkeypatch.delenv("RAP_FLEET_OPERATOR_TOKEN")
    assert main(["update", "--bundle", "new"]) == 2
    assert "RAP_FLEET_OPERATOR_TOKEN" in capsys.readouterr().err
