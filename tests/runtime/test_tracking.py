"""What a run leaves for its readers: W&B offline and CSV."""

import csv
import io
import json

import lightning
import pytest
import wandb
from PIL import Image

from tests.runtime.runs import go, grpo, sft
from tests.runtime.test_training import go_and_die
from unified_rl.runtime.tracking import carry_over, loggers, run_id

ROWS = 2 * 2
"""Prompts x completions of an iteration."""


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Two runs in one process, as a pipeline makes them; folder and images that W&B keeps."""
    root = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(root / "data"))
        patch.setenv("WANDB_SILENT", "true")
        for name, stage in (("warmup", sft(1)), ("grpo", grpo(2))):
            go(root / "demo" / name, stage, mode="offline", group="ladder")
    return root


def run_file(folder):
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return path.read_bytes()


def tables(folder):
    found = folder.glob("wandb/offline-run-*/files/media/table/samples_*.table.json")
    return [json.loads(path.read_text()) for path in found]


# -- W&B, offline ----------------------------------------------------------------------------------


def test_a_table_is_logged_an_iteration(offline):
    assert len(tables(offline / "demo" / "grpo")) == 2


def test_a_table_shows_prompts_and_rewards(offline):
    table = tables(offline / "demo" / "grpo")[0]
    assert table["columns"] == ["prompt", "text", "images", "reward", "brightness"]
    assert len(table["data"]) == ROWS
    for prompt, _, _, reward, brightness in table["data"]:
        assert len(prompt.split()) > 2
        assert reward == brightness  # the only reward, of weight 1


def test_a_table_has_the_drawn_images(offline):
    shown = [len(row[2]) for table in tables(offline / "demo" / "grpo") for row in table["data"]]
    kept = [path.read_bytes() for path in (offline / "data").rglob("*") if path.is_file()]
    images = [content for content in kept if content.startswith(b"\x89PNG")]
    assert len(images) == sum(shown) > 0
    assert {Image.open(io.BytesIO(content)).size for content in images} == {(24, 24)}


def test_rewards_are_logged_as_histograms(offline):
    found = run_file(offline / "demo" / "grpo")
    assert b"rewards/brightness" in found and b"histogram" in found


def test_metrics_are_logged(offline):
    assert b"gradient_norm" in run_file(offline / "demo" / "warmup")


def test_each_stage_has_a_run_of_its_own(offline):
    assert b"rewards/brightness" not in run_file(offline / "demo" / "warmup")


def test_no_run_is_left_open(offline):
    assert wandb.run is None


@pytest.mark.parametrize("name", ["warmup", "grpo"])
def test_a_run_is_named_after_its_folder(offline, name):
    assert f"demo/{name}".encode() in run_file(offline / "demo" / name)


def test_runs_share_their_group(offline):
    assert all(b"ladder" in run_file(offline / "demo" / name) for name in ("warmup", "grpo"))


def test_nothing_is_written_elsewhere(offline):
    assert {path.name for path in offline.iterdir()} == {"demo", "data"}


# -- CSV -------------------------------------------------------------------------------------------


def test_disabled_leaves_csv_alone(tmp_path):
    go(tmp_path, grpo(1), mode="disabled")
    assert (tmp_path / "metrics" / "metrics.csv").is_file()
    assert not (tmp_path / "wandb").exists()


def test_a_row_is_on_disk_at_once(tmp_path):
    (logger,) = loggers(tmp_path, {}, "disabled", "tests")
    logger.log_metrics({"iteration": 0.0, "loss": 1.0}, step=0)
    assert "1.0" in (tmp_path / "metrics" / "metrics.csv").read_text()


class Once(lightning.Callback):
    """Adds a metric to the first iteration alone."""

    def on_train_batch_start(self, trainer, stage, batch, batch_idx):
        report, extra = type(stage).report, {"rare": 7.0} if stage.iteration == 0 else {}
        stage.report = lambda metrics: report(stage, {**metrics, **extra})


def test_what_an_iteration_does_not_report_is_not_repeated(tmp_path):
    go(tmp_path, sft(3), Once())
    with (tmp_path / "metrics" / "metrics.csv").open(newline="") as file:
        assert [row["rare"] for row in csv.DictReader(file)] == ["7.0", "", ""]


# -- killed and started again ----------------------------------------------------------------------


def test_a_killed_run_keeps_its_name_in_the_tracker(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    go_and_die(tmp_path, sft(), mode="offline")
    go(tmp_path, sft(), mode="offline")
    go(tmp_path, sft(), mode="offline", seed=1)  # another run
    folders = sorted(tmp_path.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime)
    # offline-run-TIME-ID, and -1 behind it where two runs began in the same second
    first, second, other = (path.name.split("-")[3] for path in folders)
    assert first == second != other
    assert len(first) == 12


def test_a_name_is_made_once(tmp_path):
    path = tmp_path / "resumable" / "run_id"
    assert run_id(path) == run_id(path) == path.read_text()
    path.write_text("")  # cut off by a full disk
    assert len(run_id(path)) == 12


def test_rows_before_the_kill_are_kept(tmp_path):
    path = tmp_path / "metrics" / "metrics.csv"
    path.parent.mkdir()
    path.write_text("iteration,loss,step\n0.0,3.0,0\n1.0,2.0,1\n2.0,1.0,2\n3")  # killed at 3
    (logger,) = found = loggers(tmp_path, {}, "disabled", "tests")
    carry_over(found, iteration=2)
    logger.log_metrics({"iteration": 2.0, "loss": 0.5, "new": 7.0}, step=2)
    with path.open(newline="") as file:
        assert [(row["iteration"], row["loss"]) for row in csv.DictReader(file)] == [
            ("0.0", "3.0"),
            ("1.0", "2.0"),
            ("2.0", "0.5"),
        ]
