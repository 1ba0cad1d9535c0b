"""What pyproject.toml cannot say: every folder with an `__init__.py` is a package, and a build starts empty, or a
module that was removed would stay in later installs."""

import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildFromNothing(build_py):
    """Copies the packages into a folder that holds nothing from an earlier build."""

    def run(self) -> None:
        """Build, from nothing unless what is built only points here."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


def packages() -> list[str]:
    """The packages of `[tool.setuptools.package-dir]` and all that lie in them."""
    homes = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    found = [*homes]
    for name, home in homes.items():
        inner = (init.parent.relative_to(ROOT / home) for init in sorted((ROOT / home).glob("*/**/__init__.py")))
        found += [".".join([name, *folder.parts]) for folder in inner]
    return found


setup(cmdclass={"build_py": BuildFromNothing}, packages=packages())
