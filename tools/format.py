#!/usr/bin/env python3
"""Formats the C files, or checks that they are formatted: tools/format.py [--fix]

clang-format's output differs between releases, and distributions ship different ones. So one release is pinned by
version and checksum in tools/clang-format.txt and fetched from PyPI into .deps/; nothing else of the system changes.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIN = ROOT / "tools" / "clang-format.txt"
FOLDERS = ("src", "include", "tests", "bench", "examples")


def clang_format():
    """Path of the pinned clang-format, fetched if it is not there yet."""
    version = re.search(r"^clang-format==(\S+)", PIN.read_text(), re.M).group(1)
    home = ROOT / ".deps" / f"clang-format-{version}-{platform.machine()}"
    program = home / "clang_format" / "data" / "bin" / "clang-format"
    if not program.exists():
        home.parent.mkdir(exist_ok=True)
        # --target works where pip refuses to install outside a virtual environment. A finished folder is renamed
        # into place, so an interrupted download leaves none that looks whole.
        staged = tempfile.mkdtemp(dir=home.parent)
        try:
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                            "--root-user-action=ignore", "--no-deps", "--only-binary=:all:", "--require-hashes",
                            "--target", staged, "-r", PIN], check=True)
            shutil.rmtree(home, ignore_errors=True)
            os.chmod(staged, 0o755)
            os.rename(staged, home)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return program


def c_files():
    return sorted(str(path) for folder in FOLDERS for path in (ROOT / folder).rglob("*")
                  if path.suffix in (".c", ".h") and path.is_file())


def main():
    parser = argparse.ArgumentParser(description="format the C files, or check that they are formatted")
    parser.add_argument("--fix", action="store_true", help="write the files instead of checking them")
    options = parser.parse_args()
    program = clang_format()
    action = ["-i"] if options.fix else ["--dry-run", "-Werror"]
    result = subprocess.run([program, "--style=file", *action, *c_files()], stderr=subprocess.PIPE, text=True)
    if result.returncode == 0:
        return 0
    wrong = sorted(set(re.findall(r"^(.+?):\d+:\d+: error", result.stderr, re.M)))
    for name in wrong:
        print(f"{os.path.relpath(name, ROOT)}: not formatted; run `make format`")
    if not wrong:
        print(result.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
