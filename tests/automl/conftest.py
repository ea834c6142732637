"""Data of the tests of this folder."""

import pytest

from tests.automl import searches
from tfpeft.core.data import Batch


@pytest.fixture(scope="session")
def batch():
    return Batch(*searches.data())
