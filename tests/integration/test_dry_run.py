"""`+debug=dry` on every experiment of a published model: composed, sized, one step walked."""

import re
from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix(""))
    for path in (CONF / "experiment").rglob("*.yaml")
    if "micro" not in str(path.relative_to(CONF))
)
COUNTS = {
    # Llama and SigLIP of Janus-Pro-1B, aligners, heads, codec; tests/models counts them by hand
    "janus_pro_1b": "2.077 billion",
    "janus_1b": "2.077 billion",
    "showo_512": "1.544 billion",
    "showo_256": "1.544 billion",
    "vila_u_7b_256": "7.637 billion",
}


def test_there_are_experiments_of_all_three_papers():
    assert {name.partition("/")[0] for name in EXPERIMENTS} == {"corl", "unified_grpo", "unirl"}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_sized_and_walks_one_step(experiment, run_command, tmp_path):
    code, out, err = run_command("train", f"experiment={experiment}", "+debug=dry")
    assert code == 0, err
    model = model_of(experiment)
    if model != "vila_u_7b_256" or "qlora" not in experiment:  # LoRA's matrices come on top
        assert f"{model}: {COUNTS[model]} weights" in out
    assert re.search(r"estimated: [\d.]+ GB at its peak", out)
    assert re.search(r"model.checkpoint +not given -> random", out)
    step = re.search(r"one step in .*: loss ([-+.e\d]+), gradient_norm ([-+.e\d]+)", out)
    assert step, out
    assert all(abs(float(figure)) < 1e3 for figure in step.groups())  # nan fails too
    assert list(tmp_path.rglob("*")) == [], "nothing is kept"


def model_of(experiment):
    config = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text())
    for entry in config["defaults"]:
        if isinstance(entry, dict) and "override /model" in entry:
            return entry["override /model"]
    return model_of(config["defaults"][0])
