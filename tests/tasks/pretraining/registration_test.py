"""A training mixture under seqio: its ids, rates, splits and packing."""

import itertools
import json

import numpy as np
import pytest

from t5_align.bundled import BUNDLED_MODEL
from t5_align.tasks.pretraining.mixture import (
  Examples,
  Mixture,
  RetrievalTask,
  TextTask,
)
from t5_align.tasks.pretraining.objectives import (
  LanguageModel,
  PrefixLM,
  SpanCorruption,
)

seqio = pytest.importorskip('seqio')
tf = pytest.importorskip('tensorflow')

from t5_align.tasks.pretraining import registration  # noqa: E402 - needs seqio

MIXTURE = Mixture(
  (
    TextTask(SpanCorruption(32), rate=3.0),
    TextTask(PrefixLM(4, 31, 8), rate=1.0),
    RetrievalTask('passkey', rate=1.0, longest_tokens=64),
  )
)
DECODER_ONLY = Mixture(
  (TextTask(LanguageModel(64)), RetrievalTask('passkey', longest_tokens=64))
)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  folder = tmp_path_factory.mktemp('corpus')
  for split, word in {'train': 'sky', 'dev': 'garden', 'test': 'no'}.items():
    text = f'The {word} is blue and the old man walked home. ' * 100
    (folder / f'{split}.jsonl').write_text(json.dumps({'text': text}) + '\n')
  return folder


@pytest.fixture
def register(corpus, tmp_path):
  def call(mixture=MIXTURE, **options):
    defaults = dict(
      data=corpus, cache_dir=tmp_path, input_tokens=64, target_tokens=64
    )
    return registration.register(BUNDLED_MODEL, mixture, **defaults | options)

  yield call
  seqio.TaskRegistry.reset()
  seqio.MixtureRegistry.reset()


def read(name, split='train', count=8):
  dataset = seqio.get_mixture_or_task(name).get_dataset(
    None, split=split, shuffle=False, num_epochs=1
  )
  return list(itertools.islice(dataset.as_numpy_iterator(), count))


def test_a_task_has_the_examples_of_our_trainer(register):
  name = register()
  source = seqio.get_mixture_or_task(f'{name}_passkey')
  draw = Examples(
    Mixture(MIXTURE.tasks[2:]),
    (None,),
    str(BUNDLED_MODEL),
    input_tokens=64,
    target_tokens=64,
  )
  found = source.get_dataset(None, split='train', shuffle=False)
  for i, example in enumerate(found.take(4).as_numpy_iterator()):
    expected = draw(np.random.default_rng([0, 0, i]))
    assert example['inputs'].tolist() == list(expected.inputs)
    assert example['targets'].tolist() == list(expected.targets)


def test_validation_is_held_out_text(register):
  name = register()
  decode = registration.seqio_vocabulary(BUNDLED_MODEL).decode
  for split, word in {'train': 'sky', 'validation': 'garden'}.items():
    examples = read(f'{name}_span_corruption', split)
    text = ' '.join(
      decode([*map(int, [*e['inputs'], *e['targets']])]) for e in examples
    )
    assert word in text
    assert 'no is blue' not in text


def test_without_held_out_text_there_is_no_validation(register, corpus):
  name = register(data=[str(corpus / 'train.jsonl')])
  splits = seqio.get_mixture_or_task(f'{name}_prefix_lm').splits
  assert set(splits) == {'train'}


def test_rates_are_those_of_the_mixture(register):
  name = register()
  mixture = seqio.get_mixture_or_task(name)
  assert {task.name: mixture.get_rate(task) for task in mixture.tasks} == {
    f'{name}_span_corruption': 3.0,
    f'{name}_prefix_lm': 1.0,
    f'{name}_passkey': 1.0,
  }


def test_asking_again_is_the_same_and_otherwise_another(register):
  name = register()
  assert register() == name
  assert register(seed=1) != name
  assert register(decoder_only=True, mixture=DECODER_ONLY) != name


@pytest.mark.parametrize('pack', [False, True])
def test_an_encoder_decoder_is_fed(register, pack):
  dataset = seqio.get_dataset(
    register(),
    {'inputs': 64, 'targets': 64},
    dataset_split='train',
    shuffle=False,
    feature_converter=seqio.EncDecFeatureConverter(pack=pack),
  )
  batch = next(dataset.batch(4).as_numpy_iterator())
  assert batch['encoder_input_tokens'].shape == (4, 64)
  targets, weights = (
    batch[f'decoder_{name}'] for name in ('target_tokens', 'loss_weights')
  )
  np.testing.assert_array_equal(weights, targets > 0)
  if pack:
    assert batch['encoder_segment_ids'].max() > 1


def test_a_decoder_alone_learns_the_answer_only(register):
  name = register(DECODER_ONLY, decoder_only=True)
  dataset = seqio.get_dataset(
    f'{name}_passkey',
    {'inputs': 64, 'targets': 64},
    dataset_split='train',
    shuffle=False,
    feature_converter=seqio.PrefixLMFeatureConverter(pack=False),
  )
  (row,) = dataset.take(1).as_numpy_iterator()
  (example,) = read(f'{name}_passkey', count=1)
  prompt, answer = example['inputs'].tolist(), example['targets'].tolist()
  count = len(prompt) + len(answer)
  assert row['decoder_target_tokens'][:count].tolist() == prompt + answer
  learnt = np.flatnonzero(row['decoder_loss_weights']).tolist()
  assert learnt == list(range(len(prompt), count))


def test_weights_that_t5x_has_not_are_refused(register):
  mixture = Mixture((RetrievalTask('passkey', loss_weight=2.0),))
  with pytest.raises(ValueError, match='passkey has loss_weight=2.0'):
    register(mixture)
