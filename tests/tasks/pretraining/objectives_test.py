"""Objectives: T5's lengths, and nothing of a window lost."""

import collections

import numpy as np
import pytest

from t5_align.tasks.pretraining.objectives import (
  LanguageModel,
  PrefixLM,
  SpanCorruption,
)

SENTINELS = range(1099, 999, -1)


def fill_in(inputs, targets):
  """Put the spans of the targets where their sentinels are."""
  spans = collections.defaultdict(list)
  for token in targets.tolist():
    if token in SENTINELS:
      last = token
      spans[last] = []
    else:
      spans[last].append(token)
  whole = []
  for token in inputs.tolist():
    whole += spans.pop(token) if token in SENTINELS else [token]
  assert not spans
  return whole


class TestSpanCorruption:
  @pytest.mark.parametrize(
    ('input_tokens', 'window', 'targets'),
    # What T5's random_spans_helper gives for 15 % and a mean of 3.
    [(512, 568, 114), (256, 284, 58), (128, 141, 29)],
  )
  def test_lengths_are_t5s(self, input_tokens, window, targets):
    objective = SpanCorruption(input_tokens=input_tokens)
    assert objective.window_tokens == window
    assert objective.longest[1] + 1 == targets
    assert objective.longest[0] + 1 <= input_tokens

  @pytest.mark.parametrize('seed', range(20))
  @pytest.mark.parametrize(
    'objective',
    [
      SpanCorruption(64),
      SpanCorruption(40, noise_density=0.5, mean_span_tokens=1.0),
      SpanCorruption(9, noise_density=0.9),
      SpanCorruption(4),
    ],
  )
  def test_inputs_and_targets_make_the_window(self, objective, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 1000, objective.window_tokens).astype(np.uint16)
    inputs, targets = objective(ids, rng, SENTINELS)
    assert fill_in(inputs, targets) == ids.tolist()
    # Any window of so many tokens gives the same lengths.
    assert (len(inputs), len(targets)) == objective.longest

  def test_sentinels_come_in_order_and_no_last_one(self):
    ids = np.arange(3, 103)
    inputs, targets = SpanCorruption()(ids, np.random.default_rng(0), SENTINELS)
    for tokens in (inputs, targets):
      found = [token for token in tokens.tolist() if token in SENTINELS]
      assert found == list(SENTINELS[: len(found)])
    assert inputs[0] == 3  # a window begins with what is kept
    assert targets[0] == 1099
    assert targets[-1] == 102  # and ends with what is masked

  def test_each_place_is_masked_as_often(self):
    rng = np.random.default_rng(0)
    masked = np.zeros(100)
    for _ in range(2000):
      _, targets = SpanCorruption()(np.arange(100), rng, range(999, 899, -1))
      masked[targets[targets < 100]] += 1
    # 15 of 100; the ends differ, where a span always or never is.
    assert masked.sum() == 2000 * 15
    assert np.abs(masked[10:90] / 2000 - 0.15).max() < 0.05

  def test_too_few_sentinels(self):
    objective = SpanCorruption(512)
    ids = np.zeros(objective.window_tokens, int)
    with pytest.raises(ValueError, match='need as many sentinels'):
      objective(ids, np.random.default_rng(0), SENTINELS[:5])

  @pytest.mark.parametrize(
    'wrong',
    [
      {'input_tokens': 3},
      {'noise_density': 1.0},
      {'mean_span_tokens': 0.5},
    ],
  )
  def test_wrong_options(self, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
      SpanCorruption(**wrong)


class TestPrefixLM:
  def test_the_target_follows_the_context(self):
    objective = PrefixLM(2, 5, target_tokens=3)
    assert objective.window_tokens == 8
    rng = np.random.default_rng(0)
    lengths = collections.Counter()
    for _ in range(400):
      inputs, targets = objective(np.arange(8), rng, ())
      assert np.concatenate([inputs, targets]).tolist() == list(
        range(len(inputs) + 3)
      )
      lengths[len(inputs)] += 1
    assert sorted(lengths) == [2, 3, 4, 5]
    assert min(lengths.values()) > 70  # uniform: 100 each

  def test_wrong_options(self):
    with pytest.raises(ValueError, match='ascending'):
      PrefixLM(6, 5)
    with pytest.raises(ValueError, match='target_tokens is 0'):
      PrefixLM(target_tokens=0)


class TestLanguageModel:
  def test_the_window_is_the_target(self):
    objective = LanguageModel(6)
    ids = np.arange(6)
    inputs, targets = objective(ids, np.random.default_rng(0), ())
    assert not len(inputs)
    assert targets.tolist() == ids.tolist()
    with pytest.raises(ValueError, match='target_tokens is 0'):
      LanguageModel(0)
