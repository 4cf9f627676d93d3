"""Plants generated defects one at a time, and lists those that no test finds: `make mutants`.

Only the test files that reach a defect are run. Mutants that nobody could notice are listed in accepted.txt, each with
the reason, and are not tried.
"""

import argparse
import os
import queue
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from tests.tools.mutants import process, trial
from tests.tools.mutants.mutant import Mutant, diff, sample
from tests.tools.mutants.project import Copy, Project
from tests.tools.mutants.reach import Reach, measure, select

ROOT = Path(__file__).parents[3]
ACCEPTED = Path(__file__).with_name("accepted.txt")
BUILD = ROOT / "build/mutants"
SAMPLE = 100
Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Copies of the project for jobs that run at the same time.

    Args:
        project: The project.
        folder: Where to make the copies.
    """

    def __init__(self, project: Project, folder: Path) -> None:
        self._copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        self._count = os.cpu_count() or 1
        for number in range(self._count):
            self._copies.put(project.copy(folder / f"copy{number}"))

    def map(self, job: Callable[[Copy, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Do a job with each item, and yield the results as they come."""

        def run(item: Item) -> Result:
            copy = self._copies.get()
            try:
                return job(copy, item)
            finally:
                self._copies.put(copy)

        pool = ThreadPoolExecutor(self._count)
        try:
            for future in as_completed([pool.submit(run, item) for item in items]):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            process.end_all()
            pool.shutdown()


def measured(project: Project, workers: Workers, tests: list[str]) -> dict[str, Reach]:
    """Return what test files reach; what did not change is not measured again."""

    def job(copy: Copy, test: str) -> tuple[str, Reach]:
        kept = BUILD / "reach" / f"{project.fingerprint(test)}.json"
        if kept.exists():
            return test, Reach.model_validate_json(kept.read_text())
        with tempfile.TemporaryDirectory() as scratch:
            reach = measure(copy.folder, test, Path(scratch))
        print(f"{reach.seconds:6.1f} s  {test}{'  FAILS' if reach.failure else ''}", flush=True)
        if not reach.failure:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(reach.model_dump_json())
        return test, reach

    print("The lines that each test file reaches:")
    reached = dict(workers.map(job, tests))
    if failing := {test: reach.failure for test, reach in reached.items() if reach.failure}:
        sys.exit("\n".join([*failing.values(), f"These fail on the unchanged project: {', '.join(failing)}"]))
    return reached


def accepted() -> dict[str, str]:
    """Return the reason for each mutant that may survive, by id."""
    lines = [line for line in ACCEPTED.read_text().splitlines() if line and not line.startswith("#")]
    return {identifier: reason for identifier, _, reason in (line.partition(" ") for line in lines)}


def chosen(project: Project, arguments: argparse.Namespace) -> list[tuple[Mutant, str]]:
    """Return the mutants to try: those that are named by id, file or folder, or a sample of all."""
    everything = list(project.mutants())
    reasons = accepted()
    if gone := reasons.keys() - {mutant.id for mutant in everything}:
        print(f"Remove what no longer exists from {ACCEPTED.name}: {', '.join(sorted(gone))}")
    names = tuple(arguments.only)
    candidates = [
        mutant
        for mutant in everything
        if (mutant.id in names or mutant.file.startswith(names) if names else mutant.id not in reasons)
    ]
    picked = list(sample(candidates, arguments.sample, arguments.seed))
    print(f"{len(picked)} of {len(everything)} mutants, {len(reasons)} of which are accepted:")
    return picked


def attempt_all(
    project: Project, workers: Workers, picked: list[tuple[Mutant, str]], reached: dict[str, Reach]
) -> list[tuple[Mutant, trial.Outcome]]:
    """Try mutants, and write a report as they are tried."""
    sources = {file: project.text(file) for file in project.mutable if file.endswith(".py")}
    found: Counter[tuple[str, str]] = Counter()
    outcomes: list[tuple[Mutant, trial.Outcome]] = []

    def job(copy: Copy, item: tuple[Mutant, str]) -> tuple[Mutant, str, trial.Outcome, float]:
        mutant, text = item
        started = time.monotonic()
        outcome = trial.attempt(copy, mutant.file, text, select(mutant, reached, sources, found), reached)
        return mutant, text, outcome, time.monotonic() - started

    with (BUILD / "report.txt").open("w") as report:
        for mutant, text, outcome, seconds in workers.map(job, picked):
            outcomes.append((mutant, outcome))
            if outcome.verdict == trial.FOUND:
                found[mutant.file, trial.test_file(outcome)] += 1
            change = diff(project.text(mutant.file), text)
            verdict = f"{outcome.verdict} {outcome.evidence[:150]}".rstrip()
            print(f"{len(outcomes):4}/{len(picked)} {mutant}: {verdict} ({seconds:.0f} s)", flush=True)
            if outcome.verdict == trial.SURVIVED:
                print(change, flush=True)
            print(f"{mutant}\n{change}\n{verdict} ({seconds:.1f} s)\n", file=report, flush=True)
    return outcomes


def summarize(outcomes: list[tuple[Mutant, trial.Outcome]]) -> None:
    """Print how many mutants of each file were found, and exit with status 1 if one survived."""
    verdicts = (trial.FOUND, trial.TIMED_OUT, trial.SURVIVED)
    counts = Counter((mutant.file, outcome.verdict) for mutant, outcome in outcomes)
    for file in sorted({mutant.file for mutant, _ in outcomes}):
        print(f"{file:40}" + "".join(f"{counts[file, verdict]:5} {verdict}" for verdict in verdicts))
    survivors = [str(mutant) for mutant, outcome in outcomes if outcome.verdict == trial.SURVIVED]
    print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} mutants were found; see {BUILD / 'report.txt'}.")
    if survivors:
        sys.exit("\n".join(["These survived: write a test, or accept them in accepted.txt:", *survivors]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("only", nargs="*", help="ids of mutants, files, or folders; by default all files")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="number of mutants to try")
    parser.add_argument("--seed", default="", help="any text; another one gives another sample")
    parser.add_argument("--tests", default="*", help="pattern of the test files to run")
    parser.add_argument("--list", action="store_true", help="show the mutants, and try none")
    arguments = parser.parse_args()
    # As after Ctrl-C, what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    BUILD.mkdir(parents=True, exist_ok=True)
    project = Project(ROOT)
    if arguments.list:
        for mutant, text in chosen(project, arguments):
            print(f"{mutant}\n{diff(project.text(mutant.file), text)}")
        return
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        workers = Workers(project, Path(folder))
        reached = measured(project, workers, [test for test in project.tests if fnmatch(test, arguments.tests)])
        summarize(attempt_all(project, workers, chosen(project, arguments), reached))


if __name__ == "__main__":
    main()
