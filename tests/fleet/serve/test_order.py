import os

import pytest

from rap_edge.fleet.serve.order import Order


def test_a_box_is_told_everything_that_the_fleet_was_told() -> None:
    order = Order(
        "/bundles/nano",
        words=("--max-sessions", "2"),
        url="https://{name}.example:{port}",
        origins=("https://fleet.example",),
        drain=5.0,
        gpu_share=0.5,
    )
    assert order.arguments("10.0.0.7", 9000) == [
        *("--bundle", "/bundles/nano", "--host", "10.0.0.7", "--port", "9000", "--drain", "5.0", "--max-sessions", "2"),
        *("--public-url", "https://10-0-0-7.example:9000", "--share", "0.5", "--origin", "https://fleet.example"),
    ]


def test_a_box_has_secrets_of_its_own_and_none_that_open_kiosks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAP_SERVE_TOKEN", "a token of kiosks")
    told = Order("b", secrets={"RAP_SERVE_ICE_SERVERS": "[]"}).environment("the key", "the operator's")
    assert told["PATH"] == os.environ["PATH"]
    assert "RAP_SERVE_TOKEN" not in told
    assert told["RAP_SERVE_ICE_SERVERS"] == "[]"
    assert (told["RAP_SERVE_TICKET_KEY"], told["RAP_SERVE_OPERATOR_TOKEN"]) == ("the key", "the operator's")
    assert "[]" not in repr(Order("b", secrets={"RAP_SERVE_ICE_SERVERS": "[]"}))


def test_what_was_deployed_or_changed_later_is_followed() -> None:
    orders = [Order("a"), Order("b", generation=1), Order("c", deployed=2.0), Order("d", deployed=2.0, generation=1)]
    assert sorted(orders, key=lambda order: order.age) == orders
    assert Order("a").asks_for(Order("a", deployed=3.0))
    assert not Order("a").asks_for(Order("a", generation=1))
    assert not Order("a").asks_for(Order("a", words=("--max-sessions", "2")))
