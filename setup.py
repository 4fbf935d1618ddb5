"""What setup.cfg cannot say: a package without the pages' vendor files is not built, for a broker without them does not start."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

VENDOR = Path(__file__).parent / "web" / "vendor" / "novnc" / "core" / "rfb.js"


class BuildWhole(build_py):
    def run(self) -> None:
        if not VENDOR.exists():
            raise SystemExit(f"{VENDOR}: not there; `make web` brings what the pages are built on, by npm")
        super().run()


setup(cmdclass={"build_py": BuildWhole})
