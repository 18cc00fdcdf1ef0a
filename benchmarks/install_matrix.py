"""What a fresh installation gives: the core alone, with each extra, with all of them.

Run: make install-matrix [ARGS="--only core,math --python python3.12"]

Each row is a virtual environment of its own, made by `make setup` as a user would, and removed
afterwards: it is installed with our constraints, its pins are checked, every module is imported,
one command is asked for help, one iteration is trained on the micro-world, and a handful of tests
is run. The first step that fails ends a row and is written down with what it said. Where all
extras together fail and some of them alone do, all the others together are a row of their own. An
extra that the Makefile installs in a way of its own (`make setup-lmms`) asks for versions that are
not ours: it has its row, and is not among all. Figures land in
`benchmarks/results/install_matrix.json`; the exit code is 1 if a row failed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from unified_rl.core.errors import nearest
from unified_rl.runtime.provenance import processor, provenance

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "install_matrix.json"
CORE, ALL = "core", "all"
SHOWN = ("antlr4-python3-runtime", "hydra-core", "torch", "transformers", "wandb")
"""Packages whose versions a row names; the first has to be what Hydra and OmegaConf need."""
ANTLR = "4.9"
TESTS = ("tests/core", "tests/rewards")
"""The handful: no micro base is trained in it, and rewards use extras where they are there."""
STEP_LIMIT_S = 1800.0
_SAID = 400
"""Characters that are kept of what a failed step said."""
_IMPORT_ALL = """
import importlib, importlib.metadata, pkgutil, re, sys, unified_rl
for found in pkgutil.walk_packages(unified_rl.__path__, "unified_rl."):
    importlib.import_module(found.name)
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
wanted = set(map(plain, sys.argv[1:]))
for module, owners in importlib.metadata.packages_distributions().items():
    if module.isidentifier() and wanted & set(map(plain, owners)):
        importlib.import_module(module)
"""
_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rows that were asked for, prints a line each, and writes what came of them."""
    options = _parser().parse_args(arguments)
    extras = extras_of(ROOT / "pyproject.toml")
    apart = own_targets(ROOT / "Makefile")
    together = tuple(name for name in extras if name not in apart)
    rows = {CORE: (), **{name: (name,) for name in extras}, ALL: together}
    asked = options.only.split(",") if options.only else list(rows)
    for name in asked:
        if name not in rows:
            print(f"error: there is no row {name!r}; {nearest(name, rows)}", file=sys.stderr)
            return 2
    found: dict[str, dict[str, Any]] = {}
    for name in asked:
        found[name] = told(name, tried(rows[name], extras, options.python, apart))
    failed = [name for name in extras if name in found and not found[name]["ok"]]
    if ALL in found and not found[ALL]["ok"] and failed:
        name = f"{ALL} but {', '.join(failed)}"
        others = tuple(extra for extra in together if extra not in failed)
        found[name] = told(name, tried(others, extras, options.python, apart))
    card = provenance({}, 0)
    result = {"hardware": processor(), "commit": card["commit"], "dirty": card["dirty"]}
    RESULTS.write_text(json.dumps({**result, "rows": _kept() | found}, indent=2) + "\n")
    return int(not all(row["ok"] for row in found.values()))


def extras_of(pyproject: Path) -> dict[str, list[str]]:
    """Distributions of each extra, by its name, as the project file lists them."""
    listed = tomllib.loads(pyproject.read_text())["project"]["optional-dependencies"]
    return {name: [Requirement(one).name for one in some] for name, some in listed.items()}


def own_targets(makefile: Path) -> set[str]:
    """Extras that `make setup-NAME` installs."""
    return set(re.findall(r"^setup-([a-z]+):", makefile.read_text(), re.M))


def tried(
    extras: Sequence[str],
    distributions: Mapping[str, Sequence[str]],
    python: str,
    apart: Collection[str] = (),
) -> dict[str, Any]:
    """Installs and tries one combination: seconds by step, versions, and what went wrong.

    Args:
        extras: their names; none is the core alone.
        distributions: see `extras_of`.
        python: interpreter that the environment is made with.
        apart: extras with a target of their own.
    """
    seconds: dict[str, float] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="install_matrix") as folder:
        own = f"{folder}/venv/bin/python"
        named = [one for extra in extras for one in distributions[extra]]
        usual = ",".join(extra for extra in extras if extra not in apart)
        targets = ["setup", *(f"setup-{extra}" for extra in extras if extra in apart)]
        place = [f"PYTHON={python}", f"VENV={folder}/venv", f"EXTRAS={usual}"]
        steps = {
            "install": ["make", *targets, *place],
            # a target of its own may leave out what breaks the rest
            **({} if len(targets) > 1 else {"pins": [own, "-m", "pip", "check"]}),
            "versions": [own, "-c", _VERSIONS, *SHOWN],
            "imports": [own, "-c", _IMPORT_ALL, *named],
            "help": [own, "-m", "unified_rl.train", "--help"],
            "train": [
                *(own, "-m", "unified_rl.train", "experiment=unified_grpo/micro_grpo"),
                *("model.checkpoint=assets/micro_janus", "iterations=1", "data.batch_size=2"),
                f"paths.output={folder}/run",
            ],
            "test tools": [
                *(own, "-m", "pip", "install", "--quiet", "-c", "constraints.txt"),
                *("pytest", "hypothesis"),
            ],
            "tests": [own, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS],
        }
        for step, command in steps.items():
            started = time.perf_counter()
            code, said = _run(command)
            seconds[step] = round(time.perf_counter() - started, 1)
            if step == "versions" and code == 0:
                versions = json.loads(said.strip().splitlines()[-1])
                code = int(not versions[SHOWN[0]].startswith(ANTLR))
            if code:
                return {"ok": False, "failed": step, "said": said.strip()[-_SAID:]} | {
                    "seconds": seconds,
                    "versions": versions,
                }
    return {"ok": True, "seconds": seconds, "versions": versions, "said": _last(said)}


def told(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row, of which a line is printed."""
    verdict = "ok" if row["ok"] else f"FAILED at {row['failed']}"
    whole, install = sum(row["seconds"].values()), row["seconds"]["install"]
    print(f"{name:24} {verdict:20} {whole:6.0f} s, {install:.0f} of them to install", flush=True)
    if row["said"]:
        print(f"{'':24} {_last(row['said'])}", flush=True)
    return row


def _run(command: Sequence[str]) -> tuple[int, str]:
    # what an outer make was given is not meant for the inner one
    own = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    quiet = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**own, **quiet, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=STEP_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return 124, f"took longer than {STEP_LIMIT_S:.0f} s"
    return done.returncode, done.stdout + done.stderr


def _last(said: str) -> str:
    return next((line for line in reversed(said.splitlines()) if line.strip()), "")


def _kept() -> dict[str, Any]:
    """Rows of earlier runs, so that some of them can be run again alone."""
    if not RESULTS.is_file():
        return {}
    return json.loads(RESULTS.read_text()).get("rows", {})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows, separated by commas")
    parser.add_argument("--python", default="python3", help="interpreter to install with")
    return parser


if __name__ == "__main__":
    sys.exit(main())
