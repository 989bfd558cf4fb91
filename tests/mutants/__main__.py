"""Draw small changes to the core at random, and report those that no test in `tests/core` notices: `make mutants`.

Neither mutmut nor cosmic-ray serves. mutmut 3.8 changes no function that is decorated (our context managers, properties and
routes), nothing outside a function, draws no sample, and makes of a file of 279 lines one of 3,056, in which each call is two frames
deeper. cosmic-ray 8.7 drops no call, changes no return value, draws no sample, and runs all tests for each mutant: a minute each.

The tests run in a copy of the tree under `.cache/mutants`, once to learn which of them goes over which line, and then, for each
mutant, those that go over its line. `equivalent.txt` holds the mutants that nobody could notice, each with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import coverage

from tests.mutants.sites import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "mutants"
TREE = CACHE / "tree"
CORE = ("kafka_chat/chat", "kafka_chat/client", "kafka_chat/delivery", "kafka_chat/web/routes")
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
SURVIVORS = CACHE / "survivors.txt"
NOTICED_PERCENT = 95
PYTEST = ("-m", "pytest", "-q", "-p", "tests.mutants.selection", "-p", "no:cacheprovider", "--hypothesis-seed=0")


def copy_tree() -> None:
    """Copy what git knows or would add."""
    shutil.rmtree(TREE, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, TREE / name)


def environment(**more: str) -> dict[str, str]:
    """Return what the tests run with: the copy is found before the package that is installed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TREE), os.environ.get("PYTHONPATH", "")]), **more}


def measure() -> tuple[coverage.CoverageData, dict[str, float]]:
    """Run all of `tests/core` on the unchanged copy; return which test goes over which line, and how long each takes that passes."""
    data, results, only = CACHE / "coverage", CACHE / "results.json", CACHE / "only.json"
    environ = environment(MUTANTS_RESULTS=str(results))
    traced = ("-m", "coverage", "run", f"--data-file={data}", f"--include={','.join(f'{part}/*' for part in CORE)}")
    code = subprocess.run([sys.executable, *traced, *PYTEST, "tests/core"], cwd=TREE, env=environ, check=False).returncode
    if code not in (0, 1):
        raise SystemExit(f"pytest ends with {code} on the unchanged code; nothing can be learned from what it says of mutants")
    seconds, failed = json.loads(results.read_text())
    if failed:  # some count bytes or steps, and those of coverage are among them: once more, without it
        only.write_text(json.dumps(failed))
        subprocess.run([sys.executable, *PYTEST, "tests/core"], cwd=TREE, env={**environ, "MUTANTS_ONLY": str(only)}, check=False)
        seconds |= json.loads(results.read_text())[0]
    measured = coverage.CoverageData(str(data))
    measured.read()
    return measured, seconds


def tests_over(mutant: Mutant, measured: coverage.CoverageData, seconds: dict[str, float]) -> list[str]:
    """Return the tests to run: those that go over it, the quickest first; and then all others, where it runs at import."""
    by_line = measured.contexts_by_lineno(str((TREE / mutant.path).resolve()))
    over = {name for line in mutant.lines for name in by_line.get(line, ())}
    if "" in over:
        in_file = {name for names in by_line.values() for name in names}
        return sorted(seconds, key=lambda name: (name not in in_file, seconds[name]))
    return sorted(over & seconds.keys(), key=lambda name: seconds[name])


def noticed_by(mutant: Mutant, tests: list[str]) -> str | None:
    """Return what ended first on the mutant, or None where all tests pass."""
    if not tests:
        return None
    only = CACHE / "only.json"
    only.write_text(json.dumps(tests))
    file = TREE / mutant.path
    source, times = file.read_bytes(), file.stat()
    file.write_bytes(mutant.applied(source))
    try:
        files = sorted({name.partition("::")[0] for name in tests})
        command = [sys.executable, *PYTEST, "-x", "--tb=no", *files]
        environ = environment(MUTANTS_ONLY=str(only), PYTHONDONTWRITEBYTECODE="1")
        run = subprocess.run(command, cwd=TREE, env=environ, check=False, capture_output=True, text=True, errors="replace")
    finally:
        file.write_bytes(source)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    if run.returncode == 0:
        return None
    if -run.returncode in (signal.SIGPROF, signal.SIGALRM):
        return "a test hangs"
    said = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return said[0] if said else f"pytest ends with {run.returncode}"


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--again", action="store_true", help="only those that survived last time")
    arguments = parser.parse_args()
    files = sorted(path for part in CORE for path in (ROOT / part).rglob("*.py"))
    every = [mutant for path in files for mutant in mutants_of(str(path.relative_to(ROOT)), path.read_bytes())]
    equivalent = [entry.partition("\n  ")[0] for entry in EQUIVALENT.read_text().split("\n\n")[1:]]
    gone = set(equivalent) - {str(mutant) for mutant in every}
    drawn = sorted(every, key=lambda mutant: mutant.place(arguments.seed))[: arguments.count]
    if arguments.again:
        survived = SURVIVORS.read_text()
        drawn = [mutant for mutant in drawn if str(mutant) in survived]
    copy_tree()
    measured, seconds = measure()
    survivors, accepted = [], 0
    for number, mutant in enumerate(drawn, 1):
        tests = tests_over(mutant, measured, seconds)
        if str(mutant) in equivalent:
            accepted += 1
            continue
        found = noticed_by(mutant, tests)
        say(f"{number}/{len(drawn)} {found or f'SURVIVES {len(tests)} tests'}\n{mutant}\n")
        if found is None:
            survivors.append(f"{mutant}\n  survives {len(tests)} tests, line {mutant.lines[-1]}")
    SURVIVORS.write_text("\n\n".join(survivors))
    told = [*survivors, *(f"{entry}\n  is in {EQUIVALENT.name}, and no longer in the code" for entry in sorted(gone))]
    say("\n\n".join(told))
    percent = 100 * (1 - len(survivors) / max(1, len(drawn) - accepted))
    drew = f"seed {arguments.seed}: {len(drawn)} of {len(every)} mutants, {accepted} of them equivalent"
    say(f"{drew}; {len(survivors)} survive, {percent:.1f} % are noticed")
    return percent < NOTICED_PERCENT or bool(gone)


if __name__ == "__main__":
    sys.exit(main())
