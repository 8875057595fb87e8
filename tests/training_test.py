"""Training: loss, schedules, data and exact resume."""

import json
import math

from flax import linen as nn
import jax
from jax import numpy as jnp
import numpy as np
import pytest

from t5_align import train as train_lib
from t5_align import training as training_lib
from t5_align.bundled import BUNDLED_MODEL
from t5_align.training import Training

VOCAB_SIZE = 16


class FirstToken(nn.Module):
  """Sees the first input token and the shifted target; quick to compile."""

  dropout_rate: float = 0.1

  @nn.compact
  def __call__(self, inputs, shifted, targets, *, enable_dropout):
    embed = nn.Embed(VOCAB_SIZE, 16)
    x = embed(inputs[:, :1]) + 2.0 * embed(shifted)
    x = nn.relu(nn.Dense(32)(x))
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not enable_dropout)
    return nn.Dense(VOCAB_SIZE)(x)


def draw(generator):
  """Copies the first of up to six random tokens."""
  length = int(generator.integers(2, 7))
  tokens = generator.integers(2, VOCAB_SIZE, length).tolist()
  return tokens + [1], [tokens[0], 1]


def tiny_training(**changes):
  defaults = dict(
    num_steps=6,
    batch_size=4,
    input_lengths=(8,),
    target_length=3,
    learning_rate=1e-2,
    warmup_steps=2,
    log_every=1,
    checkpoint_every=3,
  )
  return Training(**(defaults | changes))


def leaves(state):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def numpy_loss(logits, targets, z_loss):
  """The definition, one token at a time, in float64."""
  total, count = 0.0, 0
  for row, target in zip(
    logits.reshape(-1, logits.shape[-1]).astype(np.float64),
    targets.reshape(-1),
    strict=True,
  ):
    if target == 0:
      continue
    log_z = math.log(sum(math.exp(x) for x in row))
    total += log_z - row[target] + z_loss * log_z**2
    count += 1
  return total / count


class TestLoss:
  def test_equals_its_definition(self):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 3, 5)).astype(np.float32) * 3
    targets = np.array([[4, 2, 1], [3, 1, 0]], np.int32)
    loss, _ = training_lib.cross_entropy(
      jnp.asarray(logits), jnp.asarray(targets), 1e-2
    )
    # Float32 sums of five terms: a few units in the last place.
    np.testing.assert_allclose(
      loss, numpy_loss(logits, targets, 1e-2), rtol=1e-6
    )

  def test_padding_counts_for_nothing(self):
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(2, 4, 5)).astype(np.float32)
    targets = np.array([[2, 3, 1, 0], [4, 1, 0, 0]], np.int32)
    loss, accuracy = training_lib.cross_entropy(
      jnp.asarray(logits), jnp.asarray(targets), 1e-4
    )
    changed = np.where(targets[..., None] == 0, 50.0 - logits, logits)
    same_loss, same_accuracy = training_lib.cross_entropy(
      jnp.asarray(changed), jnp.asarray(targets), 1e-4
    )
    assert loss == same_loss
    assert accuracy == same_accuracy

  def test_accuracy_is_of_whole_sequences(self):
    targets = jnp.array([[2, 3, 0], [2, 3, 1]])
    logits = jax.nn.one_hot(jnp.array([[2, 3, 4], [2, 4, 1]]), 5)
    _, accuracy = training_lib.cross_entropy(logits, targets, 0.0)
    assert accuracy == 0.5

  def test_shift_right_starts_with_pad(self):
    shifted = training_lib.shift_right(jnp.array([[5, 6, 1], [7, 1, 0]]))
    np.testing.assert_array_equal(shifted, [[0, 5, 6], [0, 7, 1]])


class TestSchedule:
  @pytest.mark.parametrize('step', [0, 1, 8, 9, 10, 39, 99])
  def test_rsqrt(self, step):
    training = tiny_training(warmup_steps=10, learning_rate=0.5, num_steps=100)
    done = step + 1
    wanted = 0.5 * (done / 10 if done < 10 else math.sqrt(10 / done))
    got = training_lib.learning_rate(training)(step)
    assert float(got) == pytest.approx(wanted, rel=1e-6)

  @pytest.mark.parametrize('step', [0, 1, 8, 9, 10, 39, 99])
  def test_cosine(self, step):
    training = tiny_training(
      warmup_steps=10, learning_rate=0.5, num_steps=100, schedule='cosine'
    )
    done = step + 1
    decay = 0.5 + 0.5 * math.cos(math.pi * (done - 10) / 90)
    wanted = 0.5 * (done / 10 if done < 10 else decay)
    got = training_lib.learning_rate(training)(step)
    # A float32 cosine near its zero: absolute error 1e-7 of the peak.
    assert float(got) == pytest.approx(wanted, rel=1e-5, abs=1e-7)

  def test_first_adamw_update_has_the_rate_as_its_size(self):
    training = tiny_training(
      optimizer='adamw', warmup_steps=1, max_gradient_norm=1e6
    )
    params = {'w': jnp.array([1.0, -2.0])}
    optimizer = training_lib.make_optimizer(training)
    with jax.numpy_dtype_promotion('standard'):
      updates, _ = optimizer.update(
        {'w': jnp.array([0.3, -5.0])}, optimizer.init(params), params
      )
    # Adam's first step is the gradient's sign, whatever its size.
    np.testing.assert_allclose(updates['w'], [-1e-2, 1e-2], rtol=1e-5)


class TestData:
  def test_a_batch_depends_on_seed_and_step_alone(self):
    training = tiny_training()
    later = list(training_lib.prefetched_batches(draw, training, 2))
    assert len(later) == 4
    for step, batch in enumerate(later, start=2):
      again = training_lib.make_batch(draw, training, step)
      np.testing.assert_array_equal(batch.inputs, again.inputs)
      np.testing.assert_array_equal(batch.targets, again.targets)

  def test_workers_make_the_same_batches(self):
    training = Training(
      num_steps=2, batch_size=3, target_length=24, data_workers=1
    )
    # A function of this file could not be imported by a worker.
    examples = train_lib.Examples(
      train_lib.Mixture(), str(BUNDLED_MODEL / 'spiece.model')
    )
    batches = list(training_lib.prefetched_batches(examples, training, 0))
    assert len(batches) == 2
    for step, batch in enumerate(batches):
      again = training_lib.make_batch(examples, training, step)
      np.testing.assert_array_equal(batch.inputs, again.inputs)
      np.testing.assert_array_equal(batch.targets, again.targets)

  def test_seeds_and_steps_differ(self):
    first = training_lib.make_batch(draw, tiny_training(), 0)
    other_step = training_lib.make_batch(draw, tiny_training(), 1)
    other_seed = training_lib.make_batch(draw, tiny_training(seed=1), 0)
    assert not np.array_equal(first.targets, other_step.targets)
    assert not np.array_equal(first.targets, other_seed.targets)

  def test_few_shapes(self):
    training = tiny_training(batch_size=1, num_steps=30, input_lengths=(4, 8))
    shapes = {
      batch.inputs.shape
      for batch in training_lib.prefetched_batches(draw, training, 0)
    }
    assert shapes == {(1, 4), (1, 8)}

  def test_too_long_an_input_is_an_error(self):
    with pytest.raises(ValueError, match='step 3: an input has . tokens'):
      training_lib.make_batch(draw, tiny_training(input_lengths=(2,)), 3)

  def test_too_long_a_target_is_an_error(self):
    with pytest.raises(ValueError, match='a target has 2 tokens'):
      training_lib.make_batch(draw, tiny_training(target_length=1), 0)


@pytest.fixture(scope='module', params=['adafactor', 'adamw'])
def straight(request, tmp_path_factory):
  """Six steps without a stop: the configuration and the final state."""
  training = tiny_training(optimizer=request.param)
  folder = tmp_path_factory.mktemp(request.param)
  return training, training_lib.fit(FirstToken(), draw, training, folder)


class TestFit:
  def test_resume_is_bit_exact(self, straight, tmp_path):
    """Stopped after step 5, a run goes back to its checkpoint of step 3."""
    training, wanted = straight

    def stop_at_step_5(row):
      if row['step'] == 5:
        raise KeyboardInterrupt

    network = FirstToken()
    with pytest.raises(KeyboardInterrupt):
      training_lib.fit(network, draw, training, tmp_path, report=stop_at_step_5)
    resumed = training_lib.fit(network, draw, training, tmp_path)
    assert int(resumed.step) == 6
    for a, b in zip(leaves(wanted), leaves(resumed), strict=True):
      np.testing.assert_array_equal(a, b)
    lines = (tmp_path / 'log.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]

  def test_another_run_is_refused_and_named(self, tmp_path):
    recipe = {'network': {'sizes': (1, 2)}}

    def fit(recipe=recipe, **changes):
      training = tiny_training(**({'num_steps': 1} | changes))
      return training_lib.fit(
        FirstToken(), draw, training, tmp_path, recipe=recipe
      )

    fit()
    for changes, name in (
      ({'seed': 1}, 'training.seed=0, now 1'),
      ({'input_lengths': (8, 9)}, 'training.input_lengths='),
      ({'schedule': 'cosine'}, 'training.num_steps=None, now 1'),
      ({'recipe': {'network': {'sizes': (1, 3)}}}, 'network.sizes='),
      ({'recipe': {}}, 'network.sizes='),
    ):
      with pytest.raises(ValueError, match=f'holds a run with {name}'):
        fit(**changes)
    state = fit(num_steps=2, checkpoint_every=4, log_every=2)
    assert int(state.step) == 2
    with pytest.raises(ValueError, match='has done 2 steps already'):
      fit(num_steps=1)

  def test_loss_falls_on_a_tiny_task(self, tmp_path):
    training = tiny_training(
      optimizer='adamw',
      schedule='cosine',
      num_steps=400,
      learning_rate=2e-2,
      batch_size=32,
      input_lengths=(8,),
      warmup_steps=20,
      log_every=50,
      checkpoint_every=400,
    )
    rows = []
    training_lib.fit(
      FirstToken(0.0), draw, training, tmp_path, report=rows.append
    )
    # log(16) = 2.77 for the token and log(2) less for EOS at chance.
    assert rows[0]['loss'] > 1.0
    assert rows[-1]['loss'] < 0.3
    assert rows[-1]['sequence_accuracy'] > 0.9

  def test_only_the_newest_checkpoints_stay(self, tmp_path):
    training = tiny_training(
      num_steps=3, checkpoint_every=1, keep_checkpoints=2
    )
    training_lib.fit(FirstToken(), draw, training, tmp_path)
    kept = sorted(path.name for path in (tmp_path / 'checkpoints').iterdir())
    assert kept == ['2', '3']

  def test_a_loss_that_is_not_finite_names_its_step(self, tmp_path):

    class Breaks(nn.Module):
      """Gives NaN once the bias has been trained for two steps."""

      @nn.compact
      def __call__(self, inputs, shifted, targets, *, enable_dropout):
        bias = self.param('bias', nn.initializers.zeros, (VOCAB_SIZE,))
        moved = jnp.max(jnp.abs(bias)) > 0.012
        logits = jnp.broadcast_to(bias, (*targets.shape, VOCAB_SIZE))
        return jnp.where(moved, jnp.nan, logits)

    training = tiny_training(
      optimizer='adamw', warmup_steps=1, log_every=3, checkpoint_every=3
    )
    with pytest.raises(FloatingPointError, match='the loss of step 3 is nan'):
      training_lib.fit(Breaks(), draw, training, tmp_path)
    assert not list((tmp_path / 'checkpoints').glob('[0-9]*'))


class TestConfiguration:
  def test_unknown_optimizer_names_the_nearest(self):
    with pytest.raises(ValueError, match="did you mean 'adafactor'"):
      Training(optimizer='adafactr')

  def test_unknown_schedule_names_the_nearest(self):
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
      Training(schedule='cosin')

  @pytest.mark.parametrize(
    'field', ['num_steps', 'batch_size', 'warmup_steps', 'log_every']
  )
  def test_counts_are_positive(self, field):
    with pytest.raises(ValueError, match=f'{field} is 0'):
      Training(**{field: 0})

  @pytest.mark.parametrize('lengths', [(), (8, 4), (4, 4)])
  def test_input_lengths_ascend(self, lengths):
    with pytest.raises(ValueError, match='wanted ascending lengths'):
      Training(input_lengths=lengths)

  def test_no_loss_is_saved_unchecked(self):
    with pytest.raises(ValueError, match='a multiple of log_every'):
      Training(log_every=100, checkpoint_every=150)
