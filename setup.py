"""Builds the native kernels; everything else is in pyproject.toml.

Environment
QMAIL_DEBUG=1      assertions and debug symbols
QMAIL_SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer
The kernels choose their instruction set at run time, so no -march flag is ever passed: one wheel fits every CPU.
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

DIRECTIVES = {"language_level": "3", "freethreading_compatible": True}


def flags() -> tuple[list[str], list[str]]:
    """Compiler and linker flags for the kind of build asked for."""
    if os.environ.get("QMAIL_SANITIZE"):
        sanitize = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
        return ["-O1", "-g", *sanitize], sanitize
    if os.environ.get("QMAIL_DEBUG"):
        return ["-O1", "-g", "-UNDEBUG"], []
    return ["-O3", "-g0", "-fno-strict-aliasing", "-fvisibility=hidden"], []


def extension(name: str, *patterns: str) -> Extension:
    """One kernel module from one .pyx and the C files that belong to it."""
    compile_args, link_args = flags()
    sources = [f"ext/{name}.pyx"]
    for pattern in patterns:
        sources += sorted(glob(f"ext/{pattern}"))
    return Extension(
        f"qmail_core._{name}",
        sources,
        include_dirs=["ext"],
        depends=sorted(glob("ext/*.h")),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


setup(
    ext_modules=cythonize(
        [
            extension("gf256", "gf256*.c"),
            extension("framing", "aes*.c", "crc32*.c", "interleave*.c", "seal*.c", "sha256*.c"),
        ],
        build_dir="build/cython",
        compiler_directives=DIRECTIVES,
    )
)
