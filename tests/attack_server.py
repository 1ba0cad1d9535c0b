"""Attacks `rap-serve` on this machine for a while: `python tests/attack_server.py --bundle build/nano-fp32`.

Every attack is bounded and made of seeded random bytes. A visitor speaks meanwhile and must get a whole video. In the
end health must be ok, no place taken, descriptors and memory as before, and no traceback or token in the log.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from aioice import stun
from helpers.media.pictures import face, jpeg_of_scans, png_with
from helpers.serving.kiosk_client import good_offer

TOKEN = "a-token-of-enough-letters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
_HEADERS = f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
_UPGRADE = (
    b"GET /api/stream HTTP/1.1\r\n" + _HEADERS + b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_START = b'{"type": "start", "rate": 16000}'
# Allocators keep some of what they had at the busiest moment, once; a leak grows with the rounds.
_MOST_GROWTH = 24 << 20
_MOST_GROWTH_SHARE = 0.25
_MOST_LOG = 64 << 10


@dataclass
class Server:
    """`rap-serve` in a process of its own, with its log in a file."""

    bundle: Path
    log: Path
    handles: int | None = None
    port: int = 0
    process: subprocess.Popen[str] = field(init=False)

    @contextlib.contextmanager
    def running(self) -> Iterator["Server"]:
        def limit() -> None:
            if self.handles is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.handles, self.handles))

        command = [sys.executable, "-m", "rap_edge.runtime.serve.cli", "--bundle", str(self.bundle), "--port", "0"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--max-sessions", "2"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"RAP_SERVE_TOKEN": TOKEN},
                preexec_fn=limit,
            )
            try:
                address = self.process.stdout.readline()
                self.port = int(address.rpartition(":")[2].partition("/")[0])
                yield self
            finally:
                self.process.send_signal(signal.SIGTERM)
                self.process.communicate(timeout=30)
        assert self.process.returncode == 0, self.log.read_text()

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self) -> int:
        """Bytes that are resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10

    async def send(self, data: bytes, seconds: float = 0.3) -> bytes:
        """What comes back for some bytes, on a connection of their own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(seconds):
                return await reader.read()
        except (ConnectionError, TimeoutError):
            return b""
        finally:
            writer.close()


def session(server: Server) -> ClientSession:
    return ClientSession(f"http://127.0.0.1:{server.port}", headers=BEARER)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Some bytes changed, cut out or doubled."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice([0, 1, 1, 8, 100]))
        out[at:end] = rng.choice([b"", rng.randbytes(1), rng.randbytes(8), bytes(out[at:end]) * 2, b"\r\n", b"\xff"])
    return bytes(out)


async def no_http(server: Server, rng: random.Random) -> None:
    """Requests that are damaged, and bytes that never were requests."""
    good = b"POST /api/webrtc?token=" + TOKEN.encode() + b" HTTP/1.1\r\n" + _HEADERS
    good += b"Content-Encoding: gzip\r\nCookie: rap-serve=\xff\xfe; x\r\nContent-Length: 9\r\n\r\nno gzip, "
    damaged = [good, rng.randbytes(500), *(mutated(rng, good) for _ in range(12))]
    for answer in await asyncio.gather(*map(server.send, damaged)):
        assert b"aiohttp" not in answer, answer
        assert not answer or re.match(rb"HTTP/\d\.\d 4", answer), answer


async def half_requests(server: Server, rng: random.Random) -> None:
    """Many connections that never finish a request, while others ask for health."""
    async with contextlib.AsyncExitStack() as stack, session(server) as visitor:
        for _ in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            writer.write(_UPGRADE[: rng.randrange(40)])
        assert (await visitor.get("/healthz")).status == 200


async def slow_bodies(server: Server, rng: random.Random) -> None:
    """Bodies that are announced and do not come."""
    head = b"POST /api/%s HTTP/1.1\r\n" + _HEADERS + b"Content-Length: 60000\r\n\r\nbegun"
    await asyncio.gather(*(server.send(head % rng.choice([b"webrtc", b"portraits"])) for _ in range(20)))


async def offers(server: Server, rng: random.Random) -> None:
    """Offers with lines changed, left out, doubled and exchanged; visitors who never come."""
    offer = (await good_offer()).encode()
    async with session(server) as client:
        for number in range(12):
            sdp = mutated(rng, offer) if number else re.sub(rb"a=mid:1\r\n", b"", offer)
            answer = await client.post("/api/webrtc", json={"sdp": sdp.decode("latin-1")})
            assert answer.status in (200, 400, 503), await answer.text()
            if answer.status == 200:
                await client.delete(f"/api/webrtc/{(await answer.json())['session']}")


async def datagrams(server: Server, rng: random.Random) -> None:
    """Packets that are no STUN, DTLS or RTP, at the ports of a visitor who never comes."""
    async with session(server) as client:
        answer = await client.post("/api/webrtc", json={"sdp": await good_offer()})
        if answer.status != 200:
            return
        told = await answer.json()
        ports = re.findall(r"a=candidate:\S+ 1 udp \d+ ([\d.]+) (\d+) typ", told["sdp"])
        fields = {key: re.search(rf"a=ice-{key}:(\S+)", told["sdp"])[1] for key in ("ufrag", "pwd")}
        question = stun.Message(
            stun.Method.BINDING, stun.Class.REQUEST, attributes={"USERNAME": fields["ufrag"] + ":x"}
        )
        question.add_message_integrity(fields["pwd"].encode())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            for number in range(400):
                data = rng.choice(
                    [
                        rng.randbytes(rng.randrange(200)),
                        mutated(rng, bytes(question)),
                        bytes([rng.choice([20, 22, 23, 128, 129])]) + b"\xfe\xfd" + rng.randbytes(60),
                    ]
                )
                for address, port in ports:
                    sending.sendto(data, (address, int(port)))
                if number % 40 == 0:
                    await asyncio.sleep(0.005)
        await client.delete(f"/api/webrtc/{told['session']}")


def frame(payload: bytes, opcode: int = 2, masked: bool = True) -> bytes:
    size = len(payload)
    header = bytes([0x80 | opcode, masked << 7 | (size if size < 126 else 126)])
    return header + (size.to_bytes(2) if size > 125 else b"") + bytes(4) * masked + payload


async def streams(server: Server, rng: random.Random) -> None:
    """WebSockets that break the protocol, speak none of it, or go in the middle."""
    start = frame(_START, 1)
    for sent in (
        frame(_START, 1, masked=False),
        start + frame(rng.randbytes(3000), masked=False),
        start + b"\x82\xff" + b"\xff" * 8,
        start + frame(rng.randbytes(3200))[:-7],
        start + frame(rng.randbytes(3201)),
        start + b"\x00\x80" + bytes(4),
        start + frame(b"{" * 3000, 1),
        frame(b"[" * 60_000, 1),
        frame(b"\xff\xff", 8),
        *(mutated(rng, start + frame(rng.randbytes(1600)) * 4) for _ in range(6)),
    ):
        await server.send(_UPGRADE + sent, 0.15)


async def storms(server: Server, rng: random.Random) -> None:
    """A thousand interrupts, ends and unknown messages in a second, with sound of no and of few samples between."""
    words = ('{"type": "interrupt"}', '{"type": "end_utterance"}', '{"type": "dance"}', "[]", "x" * 5000)
    async with session(server) as client, client.ws_connect("/api/stream") as socket:
        await socket.send_str(_START.decode())
        if (await socket.receive_json())["type"] != "ready":
            return
        listening = asyncio.create_task(_last_text(socket))
        for _ in range(100):
            for _ in range(10):
                await socket.send_str(rng.choice(words))
            await socket.send_bytes(bytes(2 * rng.choice([0, 1, 1600])))
            await asyncio.sleep(0.01)
        await socket.send_str('{"type": "finish"}')
        assert json.loads(await listening)["reason"] == "finished"


async def sessions(server: Server, rng: random.Random) -> None:
    """Sessions that nobody watches, tokens that open none, and sound that is none."""
    async with session(server) as client:
        answer = await client.post("/api/sessions", data=mutated(rng, b"no JSON"))
        assert answer.status == 400, answer.status
        answer = await client.post("/api/sessions")
        assert answer.status in (201, 503), answer.status
        made = await answer.json() if answer.status == 201 else {"session": "x", "feed_token": "y"}
        place, mine = f"/api/sessions/{made['session']}", {"X-Session-Token": made["feed_token"]}
        for token in ("", rng.randbytes(8).hex(), made["feed_token"][:-1], "\xff"):
            for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/interrupt"), ("POST", "/sound?rate=8000")):
                answer = await client.request(method, place + path, headers={"X-Session-Token": token})
                assert answer.status == 404, answer.status
        for query in ("rate=8000", "rate=8000&format=f32le", "rate=-1", "rate=%00", "", "rate=1e9&format=[]"):
            answer = await client.post(f"{place}/sound?{query}", data=rng.randbytes(rng.randrange(4000)), headers=mine)
            assert answer.status in (200, 400, 404), answer.status
        await client.delete(place, headers=mine)


async def _last_text(socket: ClientWebSocketResponse) -> str:
    text = ""
    async for message in socket:
        text = message.data if message.type is WSMsgType.TEXT else text
    return text


async def uploads(server: Server, rng: random.Random) -> None:
    """Pictures that are none, picture headers that promise too much, and pictures that cost more than their pixels."""
    png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (60_000).to_bytes(4) * 2 + b"\x08\x02\x00\x00\x00" + bytes(900)
    jpeg = b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x11\x00\x02\x11\x01\x03\x11\x01" + bytes(900)
    async with session(server) as client:
        for data in (png, jpeg, mutated(rng, png), mutated(rng, jpeg), rng.randbytes(9000)):
            answer = await client.post("/api/portraits", data=data)
            assert answer.status in (400, 503), answer.status
        pixels = face()
        for data, status in ((jpeg_of_scans(pixels, 1000), 400), (png_with(pixels, b"zTXt", 64 << 20), 201)):
            answer = await client.post("/api/portraits", data=data)
            assert answer.status in (status, 503), answer.status


async def strangers(server: Server, rng: random.Random) -> None:
    """Tokens, cookies, hosts and origins that are not the kiosk's."""
    cookie = rng.randbytes(8).translate(None, b"\r\n")
    lines = (
        b"Host: [::1]evil\r\n",
        b"Host: 127.0.0.1\r\nHost: evil\r\n",
        b"Host: 127.0.0.1\r\nAuthorization: Bearer \xff\xff\r\n",
        b"Host: 127.0.0.1\r\nCookie: rap-serve=" + cookie + b"\r\n",
        b"Host: 127.0.0.1\r\nOrigin: http://[::1]evil\r\n",
    )
    asked = b"GET /metrics?token=" + TOKEN.encode() + b" HTTP/1.1\r\n"
    for answer in await asyncio.gather(*(server.send(asked + line + b"\r\n") for line in lines)):
        assert not answer or re.match(rb"HTTP/\d\.\d 4", answer), answer


ATTACKS: tuple[Callable[[Server, random.Random], Awaitable[None]], ...] = (
    no_http,
    half_requests,
    slow_bodies,
    offers,
    datagrams,
    streams,
    storms,
    sessions,
    uploads,
    strangers,
)


async def speak(server: Server, stop: asyncio.Event) -> int:
    """A visitor in real time until `stop`; returns the bytes of the video, which must be whole."""
    received = 0
    async with session(server) as client, client.ws_connect("/api/stream") as socket:
        await socket.send_str(_START.decode())
        assert (await socket.receive_json())["type"] == "ready"

        async def talk() -> None:
            while not stop.is_set():
                await socket.send_bytes(bytes(3200))
                await asyncio.sleep(0.1)
            await socket.send_str('{"type": "finish"}')

        talking = asyncio.create_task(talk())
        async for message in socket:
            received += len(message.data) if message.type is WSMsgType.BINARY else 0
            if message.type is WSMsgType.TEXT and json.loads(message.data)["type"] not in ("stats", "utterance"):
                assert json.loads(message.data)["reason"] == "finished", message.data
        await talking
    return received


async def quiet(server: Server) -> None:
    """Wait until nobody is there."""
    async with session(server) as client, asyncio.timeout(20):
        while (await (await client.get("/healthz")).json())["sessions"]:
            await asyncio.sleep(0.1)
    # aiortc closes its ports in the background, and the connection above closes too.
    last = None
    while (now := server.descriptors()) != last:
        last = now
        await asyncio.sleep(0.5)


async def assault(server: Server, rng: random.Random, rounds: int) -> int:
    """Every attack `rounds` times while a visitor speaks; returns the bytes of the visitor's video."""
    stop = asyncio.Event()
    visitor = asyncio.create_task(speak(server, stop))
    await asyncio.sleep(0.5)
    for _ in range(rounds):
        for begin in ATTACKS:
            await begin(server, rng)
    stop.set()
    video = await visitor
    await quiet(server)
    return video


async def attack(server: Server, rounds: int, seed: int = 0) -> dict[str, object]:
    """The figures before and after `rounds` of everything, both behind a first round."""
    rng = random.Random(seed)
    await assault(server, rng, 1)
    before, began = (server.descriptors(), server.memory()), time.monotonic()
    video = await assault(server, rng, rounds)
    async with session(server) as client:
        health = await (await client.get("/healthz")).json()
    await asyncio.sleep(0.2)
    return {
        "seconds": round(time.monotonic() - began),
        "video_bytes": video,
        "health": health,
        "descriptors": (before[0], server.descriptors()),
        "memory": (before[1], server.memory()),
        "log_bytes": server.log.stat().st_size,
    }


def check(figures: dict[str, object], server: Server) -> None:
    """Raise `AssertionError` for anything that an attack has left behind."""
    assert figures["health"] == {"status": "ok", "sessions": 0, "sessions_max": 2}
    assert figures["video_bytes"] > 1000
    descriptors, memory = figures["descriptors"], figures["memory"]
    assert descriptors[1] <= descriptors[0]
    assert memory[1] - memory[0] < max(_MOST_GROWTH, _MOST_GROWTH_SHARE * memory[0]), memory
    log = server.log.read_text()
    assert "Traceback" not in log, log
    assert TOKEN not in log
    assert len(log) < _MOST_LOG


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20, help="of all attacks, about 3 s each (default: 20)")
    parser.add_argument("--handles", type=int, help="files and connections that the server may open")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(arguments.bundle, Path(folder) / "log", arguments.handles)
        with server.running():
            figures = asyncio.run(attack(server, arguments.rounds, arguments.seed))
            print(json.dumps(figures))
            print(server.log.read_text())
            check(figures, server)
    print("Health ok, no place taken, descriptors and memory as before, no traceback in the log.")


if __name__ == "__main__":
    main()
