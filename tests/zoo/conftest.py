import email.utils

import pytest


@pytest.fixture
def date() -> str:
    return email.utils.formatdate(0, usegmt=True)
