"""What do the tests catch? Puts one fault at a time into a copy of the package, and runs the tests that should fail.

The faults, mutants, are listed in mutants.toml beside this file, each with the tests that should catch it; results go
to mutants.json and are kept while the faulty file, its tests and the mutant stay as they are. In the end the tests that
caught a fault must pass without one. The peers' packages must be installed: what is skipped catches nothing.

    python scripts/mutate.py [--only PATTERN] [--tests DIR ...] [--out FILE] [--workers N] [--limit SECONDS]
"""

import argparse
import compileall
import hashlib
import json
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("mutants.toml")
FIRST = re.compile(r"^(?:FAILED|ERROR) (\S+?::\w+(?:\[.*?\])?|\S+)(?: - .*)?$", re.MULTILINE)

Mutant = dict[str, Any]  # name, file, old, new, tests and, of some, mends
Answer = dict[str, Any]  # outcome, by, seconds, hash, and sound: that "by" passes without the fault


def mutants(path: Path = LIST) -> list[Mutant]:
    """The list. Raises ValueError for a name that is there twice, and for a mutant that cannot be made."""
    found = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    twice = [name for name, count in Counter(m["name"] for m in found).items() if count > 1]
    if twice:
        raise ValueError(f"two mutants are called {twice[0]!r}")
    for mutant in found:
        mutated(mutant)
    return found


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of the file with the fault in it. Raises ValueError if it cannot be made, or is no Python."""
    name, file = mutant["name"], mutant["file"]
    if not (root / file).is_file():
        raise ValueError(f"{name}: no file {file}")
    text = (root / file).read_text(encoding="utf-8")
    if (count := text.count(mutant["old"])) != 1:
        raise ValueError(f"{name}: the old text is {count} times in {file}, not once")
    if missing := [test for test in mutant["tests"] if not (root / test).exists()]:
        raise ValueError(f"{name}: no tests {missing[0]}")
    text = text.replace(mutant["old"], mutant["new"])
    try:
        compile(text, file, "exec")
    except SyntaxError as error:
        raise ValueError(f"{name}: with the new text {file} is no Python: {error}") from None
    return text


def area(mutant: Mutant) -> str:
    """Which part of the package: the folder below it, events apart; "package" of what lies in no folder."""
    inside = Path(mutant["file"]).parts[2:-1]  # below src/spikeback/
    return "/".join(inside[:2] if "events" in inside else inside[:1]) or "package"


def fingerprint(mutant: Mutant, root: Path = ROOT) -> str:
    """Of the text with its fault, and of its tests: an answer holds while these stay."""
    digest = hashlib.sha256(mutated(mutant, root).encode())
    for test in mutant["tests"]:
        place = root / test
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def copy_of_tree(place: Path) -> Path:
    """The working tree as git sees it, and the compiled kernels, in a folder that is made."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    kernels = [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.so")]
    for name in filter(None, [*names, *kernels]):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    # A mutant may be as long and as old as what it stands for: compiled files go by what is in the source.
    compileall.compile_dir(place / "src", quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    return place


def run_tests(place: Path, tests: list[str], limit: float) -> tuple[str, str]:
    """How the tests of a copy end: "passed", "failed" (and the first that did) or "error" (and why)."""
    command = [sys.executable, "-m", "pytest", "-x", "-n0", "-p", "no:cacheprovider", "--tb=no", *tests]
    env = os.environ | {"PYTHONPATH": str(place / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:  # a pipe would wait for processes that tests leave
        process = subprocess.Popen(command, cwd=place, env=env, stdout=said, stderr=said, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return "error", f"longer than {limit:g} seconds"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        text = said.read()
    first = FIRST.search(text)
    if code == 0 and " passed" in text:
        return "passed", ""
    if code in (1, 2) and first:
        return "failed", first[1]
    if code < 0:  # the tests' own process crashed
        return "failed", f"signal {-code}"
    return "error", " ".join(text.split())[-200:] or f"pytest ended with {code}"


def answer(mutant: Mutant, place: Path, limit: float) -> Answer:
    """Put the fault into the copy, run its tests, and take it out again."""
    path, known, started = place / mutant["file"], fingerprint(mutant, place), perf_counter()
    text, before = mutated(mutant, place), path.read_bytes()
    try:
        path.write_text(text, encoding="utf-8")
        ended, by = run_tests(place, mutant["tests"], limit)
    finally:
        path.write_bytes(before)
    outcome = {"passed": "survived", "failed": "caught"}.get(ended, ended)
    seconds = round(perf_counter() - started)
    return {"outcome": outcome, "by": by, "seconds": seconds, "hash": known, "sound": outcome != "caught"}


def run_all(asked: list[Mutant], answers: dict[str, Answer], out: Path, workers: int, limit: float) -> None:
    """Answer what is asked, and write each answer down as it comes; then see whether what failed passes otherwise."""

    def write() -> None:
        out.write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(workers) as pool:
        free: Queue[Path] = Queue()  # copies of the tree, for whoever needs one next
        for i in range(workers):
            free.put(copy_of_tree(Path(folder, str(i))))

        def work(mutant: Mutant) -> tuple[str, Answer]:
            place = free.get()
            try:
                return mutant["name"], answer(mutant, place, limit)
            finally:
                free.put(place)

        for name, found in pool.map(work, asked):
            answers[name] = found
            print(f"{found['outcome']:9} {found['seconds']:4} s  {name:45} {found['by']}", flush=True)
            write()
        new = [found for found in answers.values() if not found["sound"]]
        tests = sorted({found["by"] for found in new if "/" in found["by"]})  # a signal has no name
        ended, by = run_tests(free.get(), tests, limit * len(tests)) if tests else ("passed", "")
        if ended != "passed":
            raise SystemExit(f"without a fault: {ended}, {by}")
        for found in new:
            found["sound"] = True
        write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="PATTERN", help="mutants whose name or file matches it")
    parser.add_argument("--tests", nargs="+", metavar="DIR", help="run these tests, not the mutants' own")
    parser.add_argument("--out", type=Path, default=LIST.with_suffix(".json"), help="results, taken up again")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=float, default=300, help="seconds a mutant")
    options = parser.parse_args()
    listed = mutants()
    chosen = [m | ({"tests": options.tests} if options.tests else {}) for m in listed
              if re.search(options.only, f"{m['name']} {m['file']}")]  # fmt: skip
    answers = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    answers = {m["name"]: answers[m["name"]] for m in listed if m["name"] in answers}
    asked = [m for m in chosen if answers.get(m["name"], {}).get("hash") != fingerprint(m)]
    if asked or not all(found["sound"] for found in answers.values()):
        run_all(asked, answers, options.out, options.workers, options.limit)
    counts = Counter((area(m), answers[m["name"]]["outcome"]) for m in chosen)
    print(f"\n{'area':14} {'mutants':>8} {'caught':>8}")
    for name in sorted({area(m) for m in chosen}):
        print(f"{name:14} {sum(area(m) == name for m in chosen):8} {counts[name, 'caught']:8}")
    left = [m["name"] for m in chosen if answers[m["name"]]["outcome"] != "caught"]
    print(f"{'all':14} {len(chosen):8} {len(chosen) - len(left):8}")
    if left:
        raise SystemExit(f"not caught: {', '.join(left)}")


if __name__ == "__main__":
    main()
