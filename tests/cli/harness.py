"""Runs the program under test in a home of its own, and GGUF files made by hand.

A test file calls main(); its arguments are the program and the files the tests need.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SKIPPED = 77  # Meson's exit code for a test that could not run
PROGRAM = None
FILES = []


class Case(unittest.TestCase):
    """A test with an empty home and the program to run in it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        self.config = self.home / "config" / "sluice" / "config"
        self.config.parent.mkdir(parents=True)

    def environment(self, **extra):
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("SLUICE_", "XDG_")) and name not in ("NO_COLOR", "HOME", "TERM")}
        return {**kept, "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "config"),
                "XDG_DATA_HOME": str(self.home / "data"), "XDG_STATE_HOME": str(self.home / "state"),
                "LC_ALL": "C.UTF-8", **extra}

    def run_program(self, *arguments, stdin=b"", **extra):
        """Runs the program to its end; extra are environment variables."""
        return subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, capture_output=True, timeout=300,
                              env=self.environment(**extra))

    def output(self, *arguments, stdin=b"", **extra):
        """Standard output of a run that must succeed, quietly."""
        done = self.run_program(*arguments, stdin=stdin, **extra)
        self.assertEqual((done.returncode, done.stderr), (0, b""), f"sluice {arguments}")
        return done.stdout.decode()

    def output_json(self, *arguments, stdin=b"", **extra):
        return json.loads(self.output(*arguments, "--json", stdin=stdin, **extra), parse_constant=self.fail)

    def assert_error(self, code, words, *arguments, stdin=b"", **extra):
        """The run must end with this code, nothing on standard output, and one line that has all the words."""
        done = self.run_program(*arguments, stdin=stdin, **extra)
        message = done.stderr.decode()
        self.assertEqual(done.returncode, code, f"sluice {arguments}: {message}")
        self.assertEqual(done.stdout, b"")
        self.assertTrue(message.startswith("sluice: ") and message.count("\n") == 1 and message.endswith("\n"), message)
        for word in words:
            self.assertIn(word, message)


def gguf_string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def make_gguf(path, strings, tensors):
    """A GGUF v3 file with string values and zeroed F32 tensors of the given shapes (innermost first)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(strings))
    for key, value in strings.items():
        head += gguf_string(key) + struct.pack("<I", 8) + gguf_string(value)
    offset = 0
    for name, shape in tensors.items():
        head += gguf_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", 0, offset)
        n_elems = 1
        for n in shape:
            n_elems *= n
        offset += (4 * n_elems + 31) // 32 * 32
    head += bytes(-len(head) % 32)
    path.write_bytes(head + bytes(offset))


def use_pulled_model():
    """Makes smollm2, from the store of whoever runs the tests, the file of the tests; without it they are skipped."""
    done = subprocess.run([sys.argv[1], "list", "--json"], capture_output=True, check=True)
    sys.argv[2:] = [model["path"] for model in json.loads(done.stdout) if model["name"] == "smollm2"]
    if len(sys.argv) == 2:
        print("smollm2 is not pulled")
        sys.exit(SKIPPED)


def main(names=None):
    """Runs the tests of the calling file, or those named; the counts are printed as cmocka prints them."""
    global PROGRAM
    PROGRAM, FILES[:] = os.path.abspath(sys.argv[1]), sys.argv[2:]
    result = unittest.main(argv=sys.argv[:1], defaultTest=names, exit=False, verbosity=2).result
    failed = len(result.failures) + len(result.errors)
    print(f"[  PASSED  ] {result.testsRun - failed - len(result.skipped)} test(s).")
    if failed:
        print(f"[  FAILED  ] {failed} test(s)")
    sys.exit(1 if failed else 0)
