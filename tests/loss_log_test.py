"""The loss log: means since the last line, and what a stopped run leaves."""

import json

from jax import numpy as jnp
import pytest

from t5_align.loss_log import LossLog, Metrics


def metrics(loss, tokens=(4.0, 0.0)):
  """One step; a quarter of the first task's tokens is right."""
  tokens = jnp.array(tokens)
  return Metrics(
    *map(jnp.float32, (loss, 0.5, 2.0)), loss * tokens, tokens / 4, tokens
  )


def steps(path):
  return [json.loads(line)['step'] for line in path.read_text().splitlines()]


def test_a_line_is_the_mean_since_the_last(tmp_path):
  rows = []
  log = LossLog(
    tmp_path / 'log', lambda step: step / 10, 0, rows.append, ('a', 'b')
  )
  for loss in (1.0, 2.0):
    log.add(metrics(loss))
  log.write()
  log.add(metrics(5.0))
  log.write()
  assert [row['step'] for row in rows] == [2, 3]
  assert [row['loss'] for row in rows] == [1.5, 5.0]
  # The rate of the last step, which is counted from 0.
  assert [row['learning_rate'] for row in rows] == pytest.approx([0.1, 0.2])
  assert rows[0]['sequence_accuracy'] == 0.5 and rows[0]['gradient_norm'] == 2
  assert steps(tmp_path / 'log') == [2, 3]


def test_tasks_are_told_apart_by_their_tokens(tmp_path):
  rows = []
  log = LossLog(tmp_path / 'log', lambda step: 0.0, 0, rows.append, ('a', 'b'))
  log.add(metrics(1.0, (4.0, 0.0)), num_tokens=10)
  log.add(metrics(4.0, (8.0, 0.0)), num_tokens=10**9)
  log.write()
  # A mean over tokens, not over steps; a task without any has no number.
  assert rows[0]['losses'] == {'a': 3.0}
  assert rows[0]['accuracies'] == {'a': 0.25}
  assert rows[0]['tokens_per_second'] > 10**6
  log.add(metrics(1.0, (4.0, 2.0)))
  log.write()
  assert rows[1]['losses'] == {'a': 1.0, 'b': 1.0}
  assert rows[1]['tokens_per_second'] == 0


def test_less_than_a_token_a_second_is_no_standstill(tmp_path, monkeypatch):
  clock = [0.0]
  monkeypatch.setattr('time.perf_counter', lambda: clock[0])
  rows = []
  log = LossLog(tmp_path / 'log', lambda step: 0.0, 0, rows.append, ('a', 'b'))
  log.add(metrics(1.0), num_tokens=30)
  clock[0] = 100.0  # spent on compiling
  log.write()
  assert rows[0]['tokens_per_second'] == 0.3


def test_steps_that_come_again_and_a_torn_line_are_dropped(tmp_path):
  path = tmp_path / 'log'
  path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6, "lo')
  LossLog(path, lambda step: 0.0, first_step=3)
  assert steps(path) == [2]
  path.write_text('{"step": 2}\n{"st')
  LossLog(path, lambda step: 0.0, first_step=3)
  assert steps(path) == [2]


def test_a_loss_that_is_not_finite_names_its_step(tmp_path):
  log = LossLog(
    tmp_path / 'log', lambda step: 0.0, first_step=7, tasks=('a', 'b')
  )
  for loss in (1.0, float('inf'), 1.0):
    log.add(metrics(loss))
  with pytest.raises(FloatingPointError, match='the loss of step 9 is inf'):
    log.write()
  assert steps(tmp_path / 'log') == []
