#!/usr/bin/env python3
"""Checks that a shared library exports what its header declares with SL_API, and nothing else, and that its SONAME
carries the header's SL_ABI_VERSION: tools/check_exports.py LIBRARY HEADER"""

import re
import subprocess
import sys


def main():
    library, header = sys.argv[1:]
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
    if not declared:
        print("the header declares nothing: the pattern no longer fits it")
    return 1 if wrong or not declared else 0


if __name__ == "__main__":
    sys.exit(main())
