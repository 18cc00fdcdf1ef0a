"""Every experiment of full scale has a target, and every target an experiment."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = dict(
    re.findall(
        r"^(train-[a-z0-9-]+): setup ##.*\n\t\$\(call train,(\S+)\)",
        (ROOT / "Makefile").read_text(),
        re.M,
    )
)


def test_targets_and_experiments_are_the_same():
    found = sorted(
        str(path.relative_to(ROOT / "conf/experiment").with_suffix(""))
        for path in (ROOT / "conf" / "experiment").rglob("*.yaml")
        if "micro" not in str(path.relative_to(ROOT / "conf"))
    )
    assert sorted(TARGETS.values()) == found


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((), "experiment=corl/unified"),
        (("CHECKPOINT=a/b",), "experiment=corl/unified model.checkpoint=a/b"),
        (("ARGS=+debug=dry",), "experiment=corl/unified +debug=dry"),
    ],
)
def test_a_target_passes_on_what_it_is_given(given, wanted):
    command = ["make", "--dry-run", "--no-print-directory", "train-corl-unified", *given]
    # the tests themselves may run under make, which hands its own settings down
    inherited = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "ARGS", "CHECKPOINT")
    alone = {name: value for name, value in os.environ.items() if name not in inherited}
    shown = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env=alone
    ).stdout
    assert (
        shown.splitlines()[-1].split() == f".venv/bin/python -m unified_rl.train {wanted}".split()
    )
