"""Learning rates and updates against their definitions."""

import math

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from t5_align import optimizers
from t5_align.training_options import Training


def options(**changes):
  defaults = dict(warmup_steps=10, learning_rate=0.5, num_steps=100)
  return Training(**(defaults | changes))


class TestSchedule:
  @pytest.mark.parametrize('step', [0, 1, 8, 9, 10, 39, 99])
  def test_rsqrt(self, step):
    done = step + 1
    wanted = 0.5 * (done / 10 if done < 10 else math.sqrt(10 / done))
    got = optimizers.learning_rate(options())(step)
    assert float(got) == pytest.approx(wanted, rel=1e-6)

  @pytest.mark.parametrize('step', [0, 1, 8, 9, 10, 39, 99])
  def test_cosine(self, step):
    done = step + 1
    decay = 0.5 + 0.5 * math.cos(math.pi * (done - 10) / 90)
    wanted = 0.5 * (done / 10 if done < 10 else decay)
    got = optimizers.learning_rate(options(schedule='cosine'))(step)
    # A float32 cosine near its zero: absolute error 1e-7 of the peak.
    assert float(got) == pytest.approx(wanted, rel=1e-5, abs=1e-7)


class TestOptimizer:
  def test_first_adamw_update_has_the_rate_as_its_size(self):
    training = options(
      optimizer='adamw',
      warmup_steps=1,
      learning_rate=1e-2,
      max_gradient_norm=1e6,
    )
    params = {'w': jnp.array([1.0, -2.0])}
    optimizer = optimizers.make_optimizer(training)
    with jax.numpy_dtype_promotion('standard'):
      updates, _ = optimizer.update(
        {'w': jnp.array([0.3, -5.0])}, optimizer.init(params), params
      )
    # Adam's first step is the gradient's sign, whatever its size.
    np.testing.assert_allclose(updates['w'], [-1e-2, 1e-2], rtol=1e-5)
