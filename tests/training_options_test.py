"""Options of a training run: what is refused, and what decides a run."""

import pytest

from t5_align.training_options import Training


def test_unknown_optimizer_names_the_nearest():
  with pytest.raises(ValueError, match="did you mean 'adafactor'"):
    Training(optimizer='adafactr')


def test_unknown_schedule_names_the_nearest():
  with pytest.raises(ValueError, match="did you mean 'cosine'"):
    Training(schedule='cosin')


@pytest.mark.parametrize(
  'field', ['num_steps', 'batch_size', 'warmup_steps', 'log_every']
)
def test_counts_are_positive(field):
  with pytest.raises(ValueError, match=f'{field} is 0'):
    Training(**{field: 0})


@pytest.mark.parametrize('lengths', [(), (8, 4), (4, 4)])
def test_input_lengths_ascend(lengths):
  with pytest.raises(ValueError, match='wanted ascending lengths'):
    Training(input_lengths=lengths)


def test_no_loss_is_saved_unchecked():
  with pytest.raises(ValueError, match='a multiple of log_every'):
    Training(log_every=100, checkpoint_every=150)


def test_a_run_is_the_same_however_it_is_kept():
  first = Training(num_steps=100).deciding()
  assert Training(num_steps=200, data_workers=3).deciding() == first
  assert Training(num_steps=100, pack=True).deciding() != first
  assert Training(num_steps=100, schedule='cosine').deciding() != (
    Training(num_steps=200, schedule='cosine').deciding()
  )
