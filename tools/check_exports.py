#!/usr/bin/env python3
"""Checks that a shared library exports what its header declares with SL_API, and nothing else, that its SONAME carries
the header's SL_ABI_VERSION, and that the static library, whose inner functions a linker sees as well, has only names
that begin with sl_: tools/check_exports.py LIBRARY HEADER STATIC_LIBRARY"""

import re
import subprocess
import sys


def main():
    library, header, static = sys.argv[1:]
    with open(header) as file:
        text = file.read()
    declared = set(re.findall(r"^SL_API\b[^;(]*?\b(\w+)\s*\(", text, re.M))
    listed = subprocess.run(["nm", "--dynamic", "--defined-only", library], check=True, capture_output=True, text=True)
    exported = {line.split()[-1] for line in listed.stdout.splitlines()}
    wrong = False
    for kind, names in (("exported, not declared", exported - declared), ("declared, not exported", declared - exported),
                        ("without the prefix sl_", {name for name in declared if not name.startswith("sl_")})):
        for name in sorted(names):
            print(f"{kind}: {name}")
            wrong = True
    abi = re.search(r"^#define SL_ABI_VERSION (\d+)$", text, re.M).group(1)
    dynamic = subprocess.run(["readelf", "--dynamic", library], check=True, capture_output=True, text=True).stdout
    if f"soname: [libsluice.so.{abi}]" not in dynamic:
        print(f"the SONAME is not libsluice.so.{abi}, as SL_ABI_VERSION says")
        wrong = True
    listed = subprocess.run(["nm", "--extern-only", "--defined-only", static], check=True, capture_output=True,
                            text=True)
    reachable = {line.split()[-1] for line in listed.stdout.splitlines() if len(line.split()) == 3}
    for name in sorted(name for name in reachable if not name.startswith("sl_")):
        print(f"in the static library, without the prefix sl_: {name}")
        wrong = True
    for name in sorted(declared - reachable):
        print(f"declared, but not in the static library: {name}")
        wrong = True
    if not declared:
        print("the header declares nothing: the pattern no longer fits it")
    return 1 if wrong or not declared else 0


if __name__ == "__main__":
    sys.exit(main())
