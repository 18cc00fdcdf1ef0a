"""The policies that the suites run over."""

import pytest
import torch

from tests.toys import FAMILIES, SHIPPED, build
from unified_rl.models.base import UnifiedPolicy


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=[*FAMILIES, *SHIPPED])
def policy(request: pytest.FixtureRequest) -> UnifiedPolicy:
    """Shared by all tests; none may change its weights (build a fresh one for that)."""
    return build(request.param)


@pytest.fixture(scope="session", params=FAMILIES)
def random_policy(request: pytest.FixtureRequest) -> UnifiedPolicy:
    """Small and fast, for tests of many rows."""
    return build(request.param)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """For tests that change weights: `build(family)`."""
    return request.param
