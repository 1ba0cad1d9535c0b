"""Runs a Dockerfile's steps in a folder, where no Docker is: `dockerfile_steps.py Dockerfile FOLDER [BUNDLE]`.

What is the system's own (apt-get, useradd) is said and left out; everything else is run as it stands, with the
image's folders below FOLDER. Then it says how large the program's folder is, and asks the health check of a started
entry point.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

SYSTEMS_OWN = ("apt-get", "rm -rf /var/lib/apt", "useradd")
# Folders of an image that stand below FOLDER here.
MOVED = ("/opt", "/source", "/home", "/bundle")


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions in order, continued lines joined and comments left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def moved(text: str, root: Path) -> str:
    """The image's folders as they are here."""
    return re.sub(rf"(?<![\w.-])({'|'.join(MOVED)})(?=[/\s:'\"]|$)", lambda found: f"{root}{found[1]}", text)


def main(dockerfile: Path, root: Path, bundle: Path | None) -> int:
    """Run the steps of the stages one after the other; returns the exit status."""
    env, place, health, entry = dict(os.environ), root, [""], list[str]()
    for word, rest in instructions(dockerfile.read_text()):
        if word == "WORKDIR":
            place = Path(moved(rest, root))
            place.mkdir(parents=True, exist_ok=True)
        elif word in ("ARG", "ENV"):
            name, _, value = rest.partition("=")
            env[name] = os.path.expandvars(moved(value, root)) if word == "ENV" else env.get(name, value)
        elif word == "COPY" and "--from" not in rest:
            tracked = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout
            for name in tracked.splitlines():
                if not name.startswith((".", "tests/", "benchmarks/", "docs/")):
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(name, place / name)
        elif word == "RUN":
            for command in map(str.strip, rest.split("&&")):
                if command.startswith(SYSTEMS_OWN):
                    print(f"left to the system: {command}")
                    continue
                print(f"running: {moved(command, root)}", flush=True)
                subprocess.run(["bash", "-euc", moved(command, root)], cwd=place, env=env, check=True)
        elif word == "HEALTHCHECK":
            health = json.loads(rest[rest.index("CMD ") + 4 :])
        elif word == "ENTRYPOINT":
            entry = json.loads(rest)
    megabytes = sum(file.lstat().st_size for file in (root / "opt").rglob("*")) >> 20
    print(f"{root / 'opt'} holds {megabytes} MB")
    subprocess.run([*entry, "--help"], env=env, check=True, stdout=subprocess.DEVNULL)
    return 0 if bundle is None else healthy([*entry, "--bundle", str(bundle)], health, env)


def healthy(entry: list[str], health: list[str], env: dict[str, str]) -> int:
    """Start the entry point, and ask its health until it is well, for a minute at most."""
    started = subprocess.Popen(entry, env=env)
    try:
        for _ in range(60):
            time.sleep(1.0)
            if subprocess.run(health, env=env, check=False, stderr=subprocess.DEVNULL).returncode == 0:
                print("the health check is content")
                return 0
        return 1
    finally:
        started.terminate()
        started.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]).absolute(), Path(sys.argv[3]) if sys.argv[3:] else None))
