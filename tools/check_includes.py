#!/usr/bin/env python3
"""Checks what the files under src/ may include, and where they may ask for the machine they are compiled for.

The rules about folders stand in the table of docs/CONTRIBUTING.md between the marks `include-table`; this script
reads them there. The rules about foreign headers are the two tables below.

    tools/check_includes.py               check the tree; one line for each violation; exit 1 if there is any
    tools/check_includes.py --self-test   prove on a tree made for it that each kind of violation is seen
"""

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = "docs/CONTRIBUTING.md"

# Headers of libraries and of instruction sets, and the folders that may use them.
FOREIGN = {
    r"pcre2\.h": {"text"},
    r"utf8proc\.h": {"text"},
    r"jansson\.h": {"file", "text", "sample", "compress", "tune", "app", "serve", "cli"},
    r"openssl/.*": {"file", "engine", "app", "serve", "cli"},
    r"zip\.h|zlib\.h|curl/.*": {"file"},
    r"editline/.*|histedit\.h": {"cli"},
    r"sqlite3\.h": {"app", "serve"},
    r"event2/.*": {"serve"},
    r"mpi\.h|nccl\.h": {"dist"},
    r"cpuid\.h": {"base"},
    r"(imm|x86|[a-z]*mm)intrin\.h|x86gprintrin\.h|arm_[a-z0-9]+\.h": {"base", "kernel"},
    r"cuda.*|cublas.*": {"kernel"},
}

# ISO C, POSIX and Linux: open to all.
SYSTEM = (r"(assert|complex|ctype|errno|fenv|float|inttypes|iso646|limits|locale|math|setjmp|signal|stdalign|stdarg|"
          r"stdatomic|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|string|strings|tgmath|threads|time|uchar|wchar|"
          r"wctype|dirent|dlfcn|endian|fcntl|fnmatch|fts|ftw|getopt|glob|grp|langinfo|libgen|malloc|netdb|poll|pthread|pwd|"
          r"sched|semaphore|spawn|syslog|termios|ucontext|unistd)\.h|(sys|linux|netinet|arpa|net|asm)/.*")

# #if on the instruction set, the system or the compiler belongs where the machine is measured or chosen.
MACHINE = re.compile(r"\b(__(x86_64|amd64|i386|aarch64|arm|riscv|powerpc\w*|s390x|ARM_\w+|AVX\w*|SSE\w*|FMA|F16C|BMI2?|"
                     r"linux|APPLE|FreeBSD|CUDA_ARCH)_*|_M_\w+|_WIN32|__(GNUC|clang)(_\w+)?_*|__has_(include|builtin)"
                     r"\w*)\b")
MACHINE_ALLOWED = re.compile(r"src/(base/.*|kernel/dispatch\.c|kernel/kernels\.inc)")  # the inventory is the dispatcher's table

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
CONDITION = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif)\b(.*)")


def read_table(root):
    """Folder -> set of folders it may include, from the rows `| folder | ... | a, b |` of the marked table."""
    text = (root / TABLE).read_text()
    marked = re.search(r"<!-- include-table -->(.*?)<!-- /include-table -->", text, re.S)
    if not marked:
        sys.exit(f"{TABLE}: the marks `include-table` are gone")
    rules = {}
    for line in marked.group(1).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 3 or cells[0] == "folder" or set(cells[0]) <= set("-"):
            continue
        rules[cells[0]] = set(re.findall(r"[a-z]+", cells[2]))
    for folder, allowed in rules.items():
        if "all" in allowed:
            rules[folder] = set(rules)
        unknown = rules[folder] - set(rules)
        if unknown:
            sys.exit(f"{TABLE}: row {folder} names unknown folders: {', '.join(sorted(unknown))}")
        rules[folder] |= {"base", folder}
    return rules


def check_project_include(root, path, name, rules):
    """Complaint about `#include "name"` in the file path, or None."""
    source = root / "src"
    for base in (path.parent, source, root / "include"):
        target = (base / name).resolve()
        if target.is_file():
            break
    else:
        return f'"{name}" is no file of the project; libraries and the system are included with <>'
    if target.is_relative_to((root / "include").resolve()):
        return None
    if not target.is_relative_to(source.resolve()):
        return f'"{name}" lies outside src/'
    folder, other = path.relative_to(source).parts[0], target.relative_to(source.resolve()).parts[0]
    if other not in rules[folder]:
        return f"{folder}/ may not include {other}/ (\"{name}\")"
    return None


def check_system_include(folder, name):
    """Complaint about `#include <name>` in a file of the folder, or None."""
    if name.startswith("sluice/") or re.fullmatch(SYSTEM, name):
        return None
    for pattern, folders in FOREIGN.items():
        if re.fullmatch(pattern, name):
            return None if folder in folders else f"<{name}> belongs to {', '.join(sorted(folders))}, not to {folder}/"
    return f"<{name}> is not known: add it to tools/check_includes.py, and the library to docs/ARCHITECTURE.md"


def check_file(root, path, rules):
    """Complaints "file:line: what" about one file under src/."""
    where = path.relative_to(root).as_posix()
    folder = path.relative_to(root / "src").parts[0]
    if folder not in rules:
        return [f"{where}:1: src/{folder} is not in the table of {TABLE}"]
    complaints = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        complaint = None
        include, condition = INCLUDE.match(line), CONDITION.match(line)
        if include and include.group(1) == '"':
            complaint = check_project_include(root, path, include.group(2), rules)
        elif include:
            complaint = check_system_include(folder, include.group(2))
        elif condition and MACHINE.search(condition.group(2)) and not MACHINE_ALLOWED.fullmatch(where):
            complaint = "#if on the machine, outside base/ and the kernels' dispatcher: " + line.strip()
        if complaint:
            complaints.append(f"{where}:{number}: {complaint}")
    return complaints


def check_tree(root):
    rules = read_table(root)
    return [complaint for path in sorted((root / "src").rglob("*"))
            if path.suffix in (".c", ".h", ".inc", ".cu") and path.is_file()
            for complaint in check_file(root, path, rules)]


SELF_TEST_TABLE = """<!-- include-table -->
| folder | what lives there | may include |
| --- | --- | --- |
| base | x | – |
| kernel | x | – |
| engine | x | kernel |
| cli | x | all |
<!-- /include-table -->
"""

# File, its text, and a piece of the one complaint it must draw; None where there must be none.
SELF_TEST_CASES = [
    ("src/base/a.h", "#ifndef A_H\n#define A_H\n#if defined(__x86_64__)\n#include <cpuid.h>\n#endif\n#endif\n", None),
    ("src/kernel/k.h", '#include "base/a.h"\n#include <sluice/sluice.h>\n', None),
    ("src/kernel/x86/v.c", '#include "kernel/k.h"\n#include <immintrin.h>\n', None),
    ("src/kernel/dispatch.c", "#if defined(__x86_64__)\n#endif\n", None),
    ("src/engine/e.h", '#include "kernel/k.h"\n#include <sys/mman.h>\n', None),
    ("src/cli/main.c", '#include "engine/e.h"\n', None),
    ("src/base/up.c", '#include "kernel/k.h"\n', "base/ may not include kernel/"),
    ("src/kernel/up.c", '  #  include   "engine/e.h"\n', "kernel/ may not include engine/"),
    ("src/kernel/dots.c", '#include "../engine/e.h"\n', "kernel/ may not include engine/"),
    ("src/kernel/list.inc", '#include "engine/e.h"\n', "kernel/ may not include engine/"),
    ("src/engine/out.c", '#include "../../tests/t.h"\n', "lies outside src/"),
    ("src/engine/gone.c", '#include "engine/gone.h"\n', "is no file of the project"),
    ("src/engine/lib.c", "#include <zip.h>\n", "belongs to"),
    ("src/engine/new.c", "#include <boost/any.hpp>\n", "is not known"),
    ("src/engine/isa.c", "#ifdef __AVX512F__\n#endif\n", "#if on the machine"),
    ("src/kernel/x86/cond.c", "#if defined(__AVX512VNNI__) && 1\n#endif\n", "#if on the machine"),
    ("src/cli/sys.c", "#elif _WIN32\n", "#if on the machine"),
    ("src/extra/x.c", "\n", "is not in the table"),
]


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = [(name, text) for name, text, _ in SELF_TEST_CASES] + [(TABLE, SELF_TEST_TABLE), ("tests/t.h", "")]
        for name, text in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        found = check_tree(root)
    wrong = 0
    for name, _, expected in SELF_TEST_CASES:
        mine = [complaint for complaint in found if complaint.startswith(name + ":")]
        if (expected is None and mine) or (expected and (len(mine) != 1 or expected not in mine[0])):
            print(f"self-test: {name}: expected {expected!r}, found {mine}")
            wrong += 1
    return wrong


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 1 if self_test() else 0
    if sys.argv[1:]:
        sys.exit(__doc__)
    complaints = check_tree(ROOT)
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
