"""The policies that the stage tests run over."""

import pytest
import torch

from tests.toys import FAMILIES


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """A key of `FAMILIES`."""
    return request.param
