"""One process is left as it is; two tell each other, and who is missing is named."""

import os
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from unified_rl.core.errors import TrainingError
from unified_rl.core.ranks import Ranks


def test_one_process_is_left_as_it_is():
    ranks = Ranks()
    assert (ranks.count, ranks.place) == (1, 0)
    ranks.meet("do nothing")
    assert ranks.gather("a") == ["a"]
    assert ranks.mean(0.1) == 0.1
    assert ranks.means({"b": 2.0, "a": 1.0}) == {"b": 2.0, "a": 1.0}
    gradient = torch.tensor([1.0])
    kept, none = ranks.average([gradient, None], [torch.zeros(1), torch.zeros(2)])
    assert kept is gradient and none is None


def _tell(place: int, folder: str) -> None:
    """What each of two processes does; what it finds goes to a file."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=place,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    ranks = Ranks(distributed.new_group(backend="gloo"), timeout_s=60)
    like = [torch.zeros(2), torch.zeros(1), torch.zeros(2, 2)]
    own = [torch.tensor([1.0, 2.0]) * (place + 1), None, None]
    if place == 1:
        own[1] = torch.tensor([8.0])
    first, second, third = ranks.average(own, like)
    found = {
        "gather": ranks.gather(place * 10),
        "mean": ranks.mean(place + 1),
        "means": ranks.means({"both": float(place), **({"last": 5.0} if place else {})}),
        "first": first.tolist(),
        "second": second.tolist(),
        "third": third,
    }
    error = ""
    if place == 0:
        try:
            Ranks(ranks._group, timeout_s=1).meet("draw")
        except TrainingError as raised:
            error = str(raised)
    else:
        time.sleep(4)  # hangs
    Path(folder, str(place)).write_text(repr((found, error)))
    os._exit(0)  # a broken meeting has nothing to tear down


@pytest.mark.slow
def test_two_processes_tell_each_other(tmp_path):
    started = multiprocessing.spawn(_tell, (str(tmp_path),), nprocs=2, join=False)
    for process in started.processes:
        process.join(90)
    reports = [eval((tmp_path / str(place)).read_text()) for place in range(2)]
    for found, _ in reports:
        assert found == {
            "gather": [0, 10],
            "mean": 1.5,
            "means": {"both": 0.5, "last": 5.0},  # of those that have it
            "first": [1.5, 3.0],  # the mean of (1, 2) and (2, 4)
            "second": [4.0],  # rank 0 counts as 0
            "third": None,  # nobody has it
        }
    error = reports[0][1]
    assert re.match(r"rank 0 of 2 waited 1 s at most to draw, but others are lost or hang: ", error)
    assert "Ranks 1 failed" in error and "\n" not in error
