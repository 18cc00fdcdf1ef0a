"""Commands that are written down work: README's are targets, and every target composes."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from unified_rl.runtime.cli import register_resolvers
from unified_rl.runtime.command_line import check_command_line, parse_arguments

ROOT = Path(__file__).parents[2]
TARGETS = re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^make .*?(?=\s+#|$)", "\n".join(BLOCKS), re.MULTILINE)
COMMANDS += re.findall(r"`(make [^`]+)`", README.partition("## Adding a part")[0])
DOCS = [
    command
    for path in sorted((ROOT / "docs").glob("*.md"))
    for block in re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    for command in re.findall(r"^make .*?(?=\s+#|$)", block.replace("\\\n", ""), re.MULTILINE)
]
YAML_HEADERS = [
    line.removeprefix("# Run: ")
    for path in sorted((ROOT / "conf").rglob("*.yaml"))
    for line in path.read_text().splitlines()
    if line.startswith("# Run: make")
]
WRITTEN = sorted({*COMMANDS, *DOCS, *YAML_HEADERS})  # where ... leaves settings to the reader


def python_headers():
    """(entry point, arguments) of the `# Run: python -m unified_rl...` lines of all YAML files."""
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        text = re.sub(r" \\\n#\s*", " ", path.read_text())
        for line in re.findall(r"^# Run: (python -m unified_rl\..*)", text, re.MULTILINE):
            command = re.split(r" \(| &&|;", line)[0]
            if " ..." not in command:  # which leaves settings to the reader
                name, *arguments = shlex.split(command)[2:]
                yield name.removeprefix("unified_rl."), tuple(arguments)


HEADERS = sorted(set(python_headers()))


@pytest.mark.parametrize(("entry", "arguments"), HEADERS, ids=[" ".join(a) for _, a in HEADERS])
def test_what_a_file_says_runs_it_composes(entry, arguments):
    check(entry, arguments)


def jobs(command):
    """What `make` would start of ours: entry point and arguments, all variables filled in."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    dry = ["make", "--dry-run", *shlex.split(command)[1:]]
    said = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"python -m unified_rl\.(\w+) (.*)", said)
    return [(entry, shlex.split(arguments)) for entry, arguments in found]


def check(entry, arguments):
    """Composes every job, as the entry points do before they start."""
    if not (ROOT / "conf" / f"{entry}.yaml").is_file():
        return  # a command without settings, such as compare
    register_resolvers()
    check_command_line(ROOT / "conf", entry, parse_arguments(arguments))


@pytest.mark.parametrize("command", WRITTEN)
def test_a_command_that_is_written_down_is_a_target(command):
    assert shlex.split(command)[1] in TARGETS


@pytest.mark.parametrize("command", [c for c in WRITTEN if "..." not in c])
def test_a_command_that_is_written_down_composes(command):
    for entry, arguments in jobs(command):
        check(entry, arguments)


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "constraints"])
def test_every_target_composes(target):
    # those of published models ask for folders, which a dry run does without
    given = " ARGS=+debug=dry" if target.startswith("train-") else ""
    for entry, arguments in jobs(f"make {target}{given}"):
        check(entry, arguments)


def test_targets_that_start_us_are_found():
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"^\t\$\(RUN\) unified_rl\.(\w+)", makefile, re.MULTILINE)
    named += re.findall(r"^\t\$\(call (train),", makefile, re.MULTILINE)
    found = [entry for target in TARGETS for entry, _ in jobs(f"make {target}")]
    assert sorted(found) == sorted(named) and found


def test_readme_has_commands():
    assert "make demo" in COMMANDS and len(COMMANDS) > 5
