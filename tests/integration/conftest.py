"""Command lines, run in the test's own process."""

import importlib
import sys

import pytest

from unified_rl.runtime.cli import run


@pytest.fixture
def run_command(tmp_path, monkeypatch, capfd):
    """Runs `python -m unified_rl.NAME` in an empty folder; exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def start(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        entry = importlib.import_module(f"unified_rl.{name}")
        code = run(entry.main, name, entry.__doc__)
        out, err = capfd.readouterr()
        return code, out, err

    return start
