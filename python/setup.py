# SPDX-License-Identifier: MIT OR Apache-2.0
"""Sets the tag of the wheel. Everything else about the package is in pyproject.toml.

A wheel that carries the C library is for any Python 3 on this type of machine. A wheel without it is for any machine, and
uses the system's library.
"""

from pathlib import Path
from typing import Tuple

import setuptools
from setuptools.command.bdist_wheel import bdist_wheel

CARRIES_LIBRARY = Path(__file__).parent.joinpath("rsshm", "librsshm.so.0").exists()


class Distribution(setuptools.Distribution):
    def has_ext_modules(self) -> bool:
        """Whether the wheel is for one type of machine."""
        return CARRIES_LIBRARY


class Wheel(bdist_wheel):
    def get_tag(self) -> Tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setuptools.setup(distclass=Distribution, cmdclass={"bdist_wheel": Wheel})
