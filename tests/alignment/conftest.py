"""Programs of the fast tests are compiled for longer than they run."""

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compilation(request):
  is_slow = request.node.get_closest_marker('slow') is not None
  jax.config.update('jax_disable_most_optimizations', not is_slow)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
