"""The loss against its definition, and what is logged of it."""

import math

import jax
from jax import numpy as jnp
import numpy as np

from t5_align.losses import batch_loss


def make_batch(targets, weights=None, tasks=None):
  targets = np.array(targets, np.int32)
  weights = targets != 0 if weights is None else weights
  tasks = np.zeros_like(targets) if tasks is None else tasks
  return {
    'decoder_target_tokens': targets,
    'decoder_loss_weights': np.array(weights, np.float32),
    'decoder_tasks': np.array(tasks, np.uint8),
  }


def random_logits(shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=shape).astype(np.float32) * 3


def numpy_loss(logits, batch, z_loss):
  """The definition, one token at a time, in float64."""
  total, weights = 0.0, 0.0
  for row, target, weight in zip(
    logits.reshape(-1, logits.shape[-1]).astype(np.float64),
    batch['decoder_target_tokens'].reshape(-1),
    batch['decoder_loss_weights'].reshape(-1),
    strict=True,
  ):
    log_z = math.log(sum(math.exp(x) for x in row))
    total += weight * (log_z - row[target] + z_loss * log_z**2)
    weights += weight
  return total / weights


class TestLoss:
  def test_equals_its_definition(self):
    logits = random_logits((2, 3, 5))
    batch = make_batch([[4, 2, 1], [3, 1, 0]], [[1, 10, 10], [0.5, 0.5, 0]])
    loss, metrics = batch_loss(jnp.asarray(logits), batch, 1e-2)
    # Float32 sums of five terms: a few units in the last place.
    np.testing.assert_allclose(loss, numpy_loss(logits, batch, 1e-2), rtol=1e-6)
    assert metrics.loss == loss

  def test_the_scale_of_all_weights_is_none_of_its_business(self):
    logits = jnp.asarray(random_logits((1, 2, 5)))
    loss, _ = batch_loss(logits, make_batch([[4, 1]]), 0.0)
    for scale in (0.01, 10.0):
      batch = make_batch([[4, 1]], [[scale, scale]])
      np.testing.assert_allclose(
        batch_loss(logits, batch, 0.0)[0], loss, rtol=1e-6
      )

  def test_nothing_to_learn_is_no_loss(self):
    logits = jnp.asarray(random_logits((1, 2, 5)))
    assert batch_loss(logits, make_batch([[4, 1]], [[0, 0]]), 0.0)[0] == 0

  def test_what_has_no_weight_counts_for_nothing(self):
    logits = random_logits((2, 4, 5), seed=1)
    weights = np.array([[0, 1, 1, 0], [1, 1, 0, 0]])
    batch = make_batch([[2, 3, 1, 0], [4, 1, 0, 0]], weights)
    changed = np.where(weights[..., None] == 0, 50.0 - logits, logits)
    got = batch_loss(jnp.asarray(logits), batch, 1e-4)
    same = batch_loss(jnp.asarray(changed), batch, 1e-4)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(same), strict=True):
      np.testing.assert_array_equal(a, b)


class TestMetrics:
  def test_accuracy_is_of_whole_rows(self):
    logits = jax.nn.one_hot(jnp.array([[2, 3, 4], [2, 4, 1]]), 5)
    batch = make_batch([[2, 3, 0], [2, 3, 1]])
    assert batch_loss(logits, batch, 0.0)[1].sequence_accuracy == 0.5

  def test_tasks_are_told_apart(self):
    logits = random_logits((1, 4, 5))
    logits[0, 1, 2] = 50.0  # right, and no surprise
    weights, tasks = [[1, 10, 10, 0]], [[0, 1, 1, 1]]
    batch = make_batch([[4, 2, 1, 3]], weights, tasks)
    _, metrics = batch_loss(jnp.asarray(logits), batch, 1e-4, num_tasks=3)
    assert metrics.task_tokens.tolist() == [1, 2, 0]
    surprise = -jax.nn.log_softmax(logits)
    wanted = [surprise[0, 0, 4], surprise[0, 1, 2] + surprise[0, 2, 1], 0]
    np.testing.assert_allclose(metrics.task_losses, wanted, rtol=1e-5)
    right = np.argmax(logits, -1) == [[4, 2, 1, 3]]
    assert metrics.task_right.tolist() == [right[0, 0], right[0, 1:3].sum(), 0]
