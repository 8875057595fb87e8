"""Batches: T5X's features, their shapes, and what decides them."""

import numpy as np
import pytest

from t5_align import batches
from t5_align.bundled import BUNDLED_MODEL
from t5_align.tasks.pretraining import Example, Examples, Mixture
from t5_align.training_options import Training

VOCAB_SIZE = 16


def draw(rng):
  """Copies the first of up to six random tokens."""
  length = int(rng.integers(2, 7))
  tokens = rng.integers(2, VOCAB_SIZE, length)
  return Example([*tokens, 1], np.array([tokens[0], 1]))


def options(**changes):
  defaults = dict(num_steps=6, batch_size=4, input_lengths=(8,))
  return Training(**(defaults | dict(target_length=3) | changes))


def assert_equal(a, b):
  assert list(a) == list(b)
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


EXAMPLES = [
  Example([5, 6, 1], [7, 1], 1.0, 0),
  Example([8, 1], [9, 4, 1], 10.0, 1),
]


class TestFeatures:
  def test_encoder_decoder(self):
    rows = [[example] for example in EXAMPLES]
    batch = batches.features(rows, (4, 3), packed=False)
    wanted = {
      'encoder_input_tokens': [[5, 6, 1, 0], [8, 1, 0, 0]],
      'decoder_target_tokens': [[7, 1, 0], [9, 4, 1]],
      'decoder_input_tokens': [[0, 7, 0], [0, 9, 4]],
      'decoder_loss_weights': [[1, 1, 0], [10, 10, 10]],
      'decoder_tasks': [[0, 0, 0], [1, 1, 1]],
    }
    assert {name: a.tolist() for name, a in batch.items()} == wanted

  def test_decoder_only_learns_answers_alone(self):
    rows = [[example] for example in EXAMPLES]
    batch = batches.features(rows, (0, 6), packed=False)
    wanted = {
      'decoder_target_tokens': [[5, 6, 1, 7, 1, 0], [8, 1, 9, 4, 1, 0]],
      'decoder_input_tokens': [[0, 5, 6, 1, 7, 0], [0, 8, 1, 9, 4, 0]],
      'decoder_loss_weights': [[0, 0, 0, 1, 1, 0], [0, 0, 10, 10, 10, 0]],
      'decoder_tasks': [[0] * 6, [0, 0, 1, 1, 1, 0]],
    }
    assert {name: a.tolist() for name, a in batch.items()} == wanted

  def test_packed_rows_have_segments_and_positions(self):
    batch = batches.features([EXAMPLES, EXAMPLES[:1]], (6, 5), packed=True)
    assert batch['encoder_input_tokens'][0].tolist() == [5, 6, 1, 8, 1, 0]
    assert batch['encoder_segment_ids'][0].tolist() == [1, 1, 1, 2, 2, 0]
    assert batch['encoder_positions'][0].tolist() == [0, 1, 2, 0, 1, 0]
    assert batch['decoder_target_tokens'][0].tolist() == [7, 1, 9, 4, 1]
    assert batch['decoder_input_tokens'][0].tolist() == [0, 7, 0, 9, 4]
    assert batch['decoder_segment_ids'].tolist() == [
      [1, 1, 2, 2, 2],
      [1, 1, 0, 0, 0],
    ]
    alone = batches.features([EXAMPLES], (0, 10), packed=True)
    assert 'encoder_segment_ids' not in alone
    assert alone['decoder_segment_ids'].tolist() == [[1] * 5 + [2] * 5]
    assert alone['decoder_input_tokens'][0, 5] == 0


class TestMakeBatch:
  @pytest.mark.parametrize('pack', [False, True])
  def test_a_batch_depends_on_seed_and_step_alone(self, pack):
    training = options(pack=pack, target_length=12)
    for decoder_only in (False, True):
      later = list(batches.prefetched_batches(draw, training, 2, decoder_only))
      assert len(later) == 4
      for step, batch in enumerate(later, start=2):
        again = batches.make_batch(draw, training, decoder_only, step)
        assert_equal(batch, again)

  def test_workers_make_the_same_batches(self):
    training = Training(
      num_steps=2, batch_size=3, target_length=24, data_workers=1
    )
    # A function of this file could not be imported by a worker.
    examples = Examples(
      Mixture(), (None, None), str(BUNDLED_MODEL), target_tokens=24
    )
    made = list(batches.prefetched_batches(examples, training, 0))
    assert len(made) == 2
    for step, batch in enumerate(made):
      assert_equal(batch, batches.make_batch(examples, training, False, step))

  def test_seeds_and_steps_differ(self):
    tokens = [
      batches.make_batch(draw, training, False, step)['decoder_target_tokens']
      for training, step in (
        (options(), 0),
        (options(), 1),
        (options(seed=1), 0),
      )
    ]
    assert not np.array_equal(tokens[0], tokens[1])
    assert not np.array_equal(tokens[0], tokens[2])

  def test_few_shapes(self):
    training = options(batch_size=1, num_steps=30, input_lengths=(4, 8))
    shapes = {
      batch['encoder_input_tokens'].shape
      for batch in batches.prefetched_batches(draw, training, 0)
    }
    assert shapes == {(1, 4), (1, 8)}

  def test_packed_rows_hold_more(self):
    shapes = dict(input_lengths=(32,), target_length=32, batch_size=16)
    sparse = batches.make_batch(draw, options(**shapes), False, 0)
    dense = batches.make_batch(draw, options(pack=True, **shapes), False, 0)
    name = 'encoder_input_tokens'
    assert dense[name].shape == sparse[name].shape
    assert (dense[name] > 0).mean() > 0.8 > 0.3 > (sparse[name] > 0).mean()

  def test_too_long_an_input_is_an_error(self):
    training = options(input_lengths=(2,))
    with pytest.raises(ValueError, match='step 3: an input has . tokens'):
      batches.make_batch(draw, training, False, 3)

  @pytest.mark.parametrize('decoder_only', [False, True])
  def test_too_long_a_target_is_an_error(self, decoder_only):
    training = options(target_length=1)
    with pytest.raises(ValueError, match='a target has . tokens'):
      batches.make_batch(draw, training, decoder_only, 0)

  def test_too_long_to_be_packed_is_an_error(self):
    training = options(input_lengths=(2,), pack=True)
    with pytest.raises(ValueError, match='step 3: an example has . input'):
      batches.make_batch(draw, training, False, 3)
