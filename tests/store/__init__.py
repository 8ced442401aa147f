"""Tests of stores; `suite` is what every store must pass."""

import pytest

pytest.register_assert_rewrite("tests.store.suite")
