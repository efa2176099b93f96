"""Would the tests see a wrong sign? One small error at a time is put in on purpose.

    python tests/mutations.py                  all of them, some 12 seconds each on one core
    python tests/mutations.py --only losses    those whose file, lines or tests have this word
    python tests/mutations.py --slice 0:12     the first twelve
    python tests/mutations.py --list           only look whether each old text is there, once

Run by hand; pytest does not collect this file. The repository is copied to a temporary folder,
and only the copy is changed: in a file of gill_lite one text gives way to another (a *mutation*,
mutations.txt lists them), and the tests named for it are run. They must fail: the mutation is
*caught*. If they pass, it *survived*, and a test is missing or too weak: mend the tests, not the
list. First the same tests run without any mutation, and must pass. Exit status 1 if one survives,
if an old text is not found exactly once, or if tests cannot be run.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = (".*", "runs", "build", "dist", "paper", "__pycache__", "*.egg-info")
LONGEST = 600  # seconds a mutated test may take; some mutations never end


class Mutation(NamedTuple):
    """One error: in `file` of gill_lite, `new` stands for `old`; tests of `words` must see it."""

    file: str
    test_file: str
    words: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        return Path("gill_lite") / self.file

    def occurrences(self, root: Path) -> int:
        """How often the old text stands in the file; it must be once."""
        path = root / self.path
        return path.read_text(encoding="utf-8").count(self.old) if path.is_file() else 0


def read_mutations() -> list[Mutation]:
    """The list; an entry that cannot be read ends the script."""
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
    found = re.findall(r"^@ (\S+) (\S+) (\S+)\n- (.*)\n\+ ?(.*)$", text, re.MULTILINE)
    if len(found) != len(re.findall("^@", text, re.MULTILINE)):
        sys.exit("an entry of mutations.txt does not have its three lines")
    return [Mutation(*parts) for parts in found]


def run_tests(copy: Path, mutations: Sequence[Mutation]) -> tuple[str, str]:
    """pytest on the tests of the mutations: "passed", "failed" or what went wrong, and the test."""
    files = sorted({f"tests/{m.test_file}" for m in mutations})
    words = " or ".join(sorted({m.words for m in mutations}))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *files, "-k", words],
            cwd=copy, env=environment, timeout=LONGEST, capture_output=True, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "failed", "(no end)"
    status = {0: "passed", 1: "failed", 5: "no test has this name"}.get(done.returncode, "broken")
    first = re.search(r"^(?:FAILED|ERROR) \S*?::(\S+)", done.stdout, re.MULTILINE)
    return status, first[1] if first else done.stdout.strip()[-200:]


def try_out(copy: Path, mutation: Mutation) -> list:
    """A row of the table: what became of one mutation."""
    row, count = [mutation.file, f"{mutation.old}\n{mutation.new}"], mutation.occurrences(copy)
    if count != 1:
        return [*row, f"old text found {count} times", "", 0]
    path, started = copy / mutation.path, time.monotonic()
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(mutation.old, mutation.new), encoding="utf-8")
    status, test = run_tests(copy, [mutation])
    path.write_text(whole, encoding="utf-8")
    result = {"failed": "caught", "passed": "SURVIVED"}.get(status, status)
    return [*row, result, test, round(time.monotonic() - started)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a word in file, lines or tests")
    parser.add_argument("--slice", default=":", help="A:B, mutations A to B-1 of those")
    parser.add_argument("--list", action="store_true", help="run no tests")
    options = parser.parse_args()
    chosen = [m for m in read_mutations() if any(options.only in field for field in m)]
    first, last = (int(end) if end else None for end in options.slice.split(":"))
    chosen = chosen[first:last]
    if not chosen:
        sys.exit("no mutation is left to try; look at --only and --slice")
    if options.list:
        rows = [[m.file, f"{m.old}\n{m.new}", m.occurrences(ROOT), "", 0] for m in chosen]
    else:
        with tempfile.TemporaryDirectory(prefix="gill-mutations-") as folder:
            copy = Path(folder) / "copy"
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
            without = run_tests(copy, chosen)
            if without[0] != "passed":
                print("without any mutation the tests should pass, but:", *without)
                return 1
            rows = [try_out(copy, mutation) for mutation in tqdm(chosen)]
    print(tabulate(rows, ["file", "old and new", "result", "test that failed", "s"]))
    bad = [row for row in rows if row[2] not in ("caught", 1)]
    print(f"{len(rows)} mutations, {len(bad)} of them not caught or not found")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
