"""Puts faults into modules of the package, one at a time, and says which the tests do not notice.

`scripts/mutation` starts it. Exit code 1: a fault went unnoticed that `equivalent.toml` does not
explain.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.mutation.explained import explanation
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.targets import TARGETS
from tests.mutation.trial import BrokenTestsError, explore, path_of, prepare, survives


@dataclass
class Score:
    """What became of the faults of a module.

    Attributes:
        module: Its name.
        there: How many faults there are.
        tried: How many of them were put in.
        killed: How many of those the tests noticed.
        equivalent: How many change nothing, with an explanation; they are not run.
        survivors: Those that nobody noticed.
    """

    module: str
    there: int
    tried: int = 0
    killed: int = 0
    equivalent: int = 0
    survivors: list[Mutant] = field(default_factory=list)


def score(module: str, sample: int | None, seed: int) -> Score:
    """Tries a module's faults, all of them or a sample."""
    found = mutants(path_of(module).read_text())
    result = Score(module, len(found))
    chosen = found if sample is None else random.Random(seed).sample(found, min(sample, len(found)))
    reach = explore(module, TARGETS[module])
    for mutant in sorted(chosen, key=lambda one: one.line):
        result.tried += 1
        if explanation(module, mutant) is not None:
            result.equivalent += 1
        elif survives(module, mutant, reach):
            result.survivors.append(mutant)
            print(f"{path_of(module).name}:{mutant.line}: {mutant.text}\n    {mutant.change}", flush=True)
        else:
            result.killed += 1
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Tries faults as the arguments say."""
    parser = argparse.ArgumentParser(prog="scripts/mutation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--module", action="append", help="only this one, as `flops.matmul`; may be repeated")
    parser.add_argument("--sample", type=int, help="at most so many faults of each module (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="which sample (default: 0)")
    given = parser.parse_args(argv)
    names = [f"dnnsplit_onnx.{name}" for name in given.module] if given.module else list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no tests are known for {', '.join(unknown)}; see tests/mutation/targets.py")
    prepare()
    try:
        scores = [score(name, given.sample, given.seed) for name in names]
    except BrokenTestsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(scores)
    return int(any(one.survivors for one in scores))


def print_table(scores: Sequence[Score]) -> None:
    """The scores, a line each, and their sum."""
    print(f"{'module':36} {'faults':>6} {'tried':>6} {'killed':>6} {'equivalent':>10} {'survived':>8}")
    total = Score("all", 0)
    for one in scores:
        total.there, total.tried = total.there + one.there, total.tried + one.tried
        total.killed, total.equivalent = total.killed + one.killed, total.equivalent + one.equivalent
        total.survivors += one.survivors
    for one in (*scores, total):
        counts = f"{one.there:6} {one.tried:6} {one.killed:6} {one.equivalent:10} {len(one.survivors):8}"
        print(f"{one.module:36} {counts}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{(used.ru_utime + used.ru_stime) / 60:.1f} minutes of processor time")


if __name__ == "__main__":
    sys.exit(main())
