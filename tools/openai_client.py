#!/usr/bin/env python3
"""Fetches OpenAI's official Python client for the server's tests: tools/openai_client.py

The versions of tools/openai-client.txt are put into .deps/; nothing of the system changes. A test calls
add_to_path() and then imports openai.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIN = ROOT / "tools" / "openai-client.txt"


def fetch():
    """Folder that holds the client, fetched if it is not there yet."""
    pinned = hashlib.sha256(PIN.read_bytes()).hexdigest()[:12]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    home = ROOT / ".deps" / f"openai-client-{pinned}-{python}-{platform.machine()}"
    if home.exists():
        return home
    home.parent.mkdir(exist_ok=True)
    # A finished folder is renamed into place, so an interrupted download leaves none that looks whole.
    staged = tempfile.mkdtemp(dir=home.parent)
    try:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "--root-user-action=ignore", "--no-deps", "--only-binary=:all:", "--target", staged, "-r", PIN],
                       check=True)
        os.chmod(staged, 0o755)
        try:
            os.rename(staged, home)
        except OSError:
            if not home.exists():  # otherwise somebody else was faster
                raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return home


def add_to_path():
    sys.path.insert(0, str(fetch()))


if __name__ == "__main__":
    print(fetch())
