"""The tasks under seqio: ids, registry, and its own Evaluator."""

import json
import re

import numpy as np
import pytest

from t5_align import evaluation, tasks
from t5_align import vocabulary as vocabulary_lib
from t5_align.aligning import Alignment
from t5_align.prompts import Settings
from t5_align.tasks import generators, measures
from t5_align.tasks.generators import filler
from t5_align.temperature import Temperatures
from tests.fake_model import Generated, fake_model

seqio = pytest.importorskip('seqio')
tf = pytest.importorskip('tensorflow')

from t5_align.tasks import registration  # noqa: E402 - needs seqio

NAMES = ['passkey_200', 'line_retrieval_5', 'line_retrieval_tokens_90']
LENGTHS = {'inputs': 256, 'targets': 32}


@pytest.fixture(scope='module')
def vocabulary():
  sentences = filler.sentences(np.random.default_rng(0))
  texts = [f'{next(sentences)} The pass key is 48213.' for _ in range(400)]
  return vocabulary_lib.SentencePieceVocabulary(
    vocabulary_lib.train_sentencepiece(texts, 700)
  )


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(registration, '_registered', {})
  yield
  seqio.TaskRegistry.reset()


@pytest.mark.parametrize('name', NAMES)
def test_inputs_have_our_ids(vocabulary, name):
  assert tasks.register(vocabulary, [name], num_samples=4) == [name]
  dataset = seqio.get_mixture_or_task(name).get_dataset(
    LENGTHS, split='test', shuffle=False
  )
  samples = list(generators.get_task(name).samples(vocabulary.encode, limit=4))
  examples = list(dataset.as_numpy_iterator())
  assert len(examples) == 4
  for example, sample in zip(examples, samples, strict=True):
    assert example['id'].decode() == sample.id
    assert example['inputs'].tolist() == [*vocabulary.encode(sample.prompt), 1]
    assert example['targets'].tolist() == [*vocabulary.encode(sample.target), 1]


def test_bytes_and_splits():
  vocabulary = vocabulary_lib.ByteVocabulary()
  tasks.register(vocabulary, ['passkey_100'], num_samples=3)
  task = seqio.get_mixture_or_task('passkey_100')
  prompts = {
    example['inputs_pretokenized']
    for split in ('train', 'validation', 'test')
    for example in task.get_dataset(None, split=split).as_numpy_iterator()
  }
  assert len(prompts) == 9
  assert all(len(prompt) < 100 for prompt in prompts)


def test_asking_twice_does_nothing_and_another_vocabulary_replaces(vocabulary):
  name = NAMES[0]
  tasks.register(vocabulary, [name])
  first = seqio.TaskRegistry.get(name)
  tasks.register(vocabulary, [name])
  tasks.register(vocabulary.to_seqio(), [name])
  assert seqio.TaskRegistry.get(name) is first
  tasks.register(vocabulary_lib.ByteVocabulary(), [name])
  second = seqio.TaskRegistry.get(name)
  assert second is not first
  assert isinstance(
    second.output_features['inputs'].vocabulary, seqio.ByteVocabulary
  )


def test_all_typical_sizes_are_registered_at_once():
  names = tasks.register(vocabulary_lib.ByteVocabulary())
  assert names == [
    name
    for name in generators.list_tasks()
    if generators.get_task(name).is_generated
  ]
  assert set(names) <= set(seqio.TaskRegistry.names())


def test_faults_are_found_before_anything_is_registered(tmp_path):
  vocabulary = vocabulary_lib.ByteVocabulary()
  with pytest.raises(ValueError, match="Did you mean 'passkey_64'"):
    tasks.register(vocabulary, ['passkey_64', 'paskey_64'])
  with pytest.raises(ValueError, match='neither a file'):
    tasks.register(vocabulary, ['passkey_64'], prompt_template='none such')
  # Lines may be read from files, keys of this kind may not.
  with pytest.raises(ValueError, match='passkey_64 is always generated'):
    tasks.register(vocabulary, ['line_retrieval_5', 'passkey_64'], data='file')
  assert not seqio.TaskRegistry.names()


def test_somebody_elses_task_is_not_replaced():
  vocabulary = vocabulary_lib.ByteVocabulary()
  tasks.register(vocabulary, ['passkey_64'])
  registration._registered.clear()
  with pytest.raises(ValueError, match="already has a task 'passkey_64'"):
    tasks.register(vocabulary, ['passkey_64'])


@pytest.mark.parametrize(
  ('lengths', 'feature'),
  # Of 20 prompts of up to 100 bytes some pass 50; five digits and EOS are 6.
  [
    ({'inputs': 50, 'targets': 32}, 'inputs'),
    ({'inputs': 100, 'targets': 5}, 'targets'),
  ],
)
def test_nothing_is_cut_in_silence(lengths, feature):
  vocabulary = vocabulary_lib.ByteVocabulary()
  tasks.register(vocabulary, ['passkey_100'], num_samples=20)
  task = seqio.get_mixture_or_task('passkey_100')
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=f'passkey_100: {feature} are longer'
  ):
    list(task.get_dataset(lengths, split='test').as_numpy_iterator())


def read(prompt):
  """Answers half of the samples: those with an even key."""
  key = re.search(r'pass key is (\d+)', prompt)[1]
  return f' {key} ⁇' if int(key) % 2 == 0 else 'I do not know'


def evaluate_with_seqio(name, lengths, predict, score):
  """Return what seqio's own Evaluator finds."""
  evaluator = seqio.Evaluator(
    name,
    feature_converter=seqio.EncDecFeatureConverter(pack=False),
    eval_split='test',
    sequence_length=lengths,
  )
  metrics, _ = evaluator.evaluate(
    compute_metrics=True, step=0, predict_fn=predict, score_fn=score
  )
  return metrics.result()[name]


def test_seqios_own_evaluator_scores_as_ours(vocabulary):
  name = 'passkey_200'
  tasks.register(vocabulary, [name], num_samples=10)
  theirs = vocabulary.to_seqio()

  def predict(dataset, model_feature_shapes=None):
    del model_feature_shapes
    answers = []
    for i, example in dataset.as_numpy_iterator():
      prompt = theirs.decode(example['encoder_input_tokens'].tolist())
      ids = [*theirs.encode(read(prompt)), 1]
      answers.append((int(i), np.pad(ids, (0, 32 - len(ids)))))
    return answers

  results = evaluate_with_seqio(name, LENGTHS, predict, None)
  definition = generators.get_task(name)
  samples = list(definition.samples(vocabulary.encode, limit=10))
  expected = np.mean(
    [definition.score(read(s.prompt), s)['passkey_match'] for s in samples]
  )
  assert 0 < expected < 1
  assert results['passkey_match'] == pytest.approx(expected)
  assert results['passkey_match_ci95_low'] < expected
  assert results['passkey_match_stderr'] > 0


def write_code(folder):
  lines = [f'  if (a{i} < b) {{ return x{i}; }}' for i in range(12)]
  rows = [
    {'input': '', 'context': f'f(a{i});', 'answers': [line], '_id': f'{i}'}
    for i, line in enumerate(lines)
  ]
  path = folder / 'lcc.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def write_questions(folder):
  rows = [
    {
      'question': f'who is number {i}',
      'answers': ['nobody', f'the {i}.'],
      'ctxs': [{'title': 'A', 'text': f'It is {i}.', 'isgold': True}],
      'nq_annotated_gold': None,
    }
    for i in range(12)
  ]
  path = folder / 'nq-open-oracle.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


@pytest.mark.parametrize(
  ('name', 'write'),
  [
    ('lcc', write_code),
    ('multi_doc_qa_oracle', write_questions),
    ('topic_retrieval_2', None),
    ('kv_retrieval_3_gold_1', None),
  ],
)
def test_both_evaluators_find_the_same(vocabulary, tmp_path, name, write):
  data = write and str(write(tmp_path))
  definition = generators.get_task(name)
  answers = {
    tuple(vocabulary.encode(sample.prompt)): vocabulary.encode(
      sample.target if i % 3 else f'{sample.target[:4]}\nor 7'
    )
    for i, sample in enumerate(
      definition.samples(vocabulary.encode, limit=12, data=data)
    )
  }

  def generate(inputs, **_):
    return [Generated(answers[tuple(ids[:-1])], -1.0, True) for ids in inputs]

  def predict(dataset, model_feature_shapes=None):
    del model_feature_shapes
    predicted = []
    for i, example in dataset.as_numpy_iterator():
      ids = example['encoder_input_tokens']
      answer = [*answers[tuple(ids[ids > 1].tolist())], 1]
      predicted.append((int(i), np.pad(answer, (0, 400 - len(answer)))))
    return predicted

  model = fake_model()
  model.vocabulary, model.inference.generate = vocabulary, generate
  _, (row,) = evaluation.evaluate(
    model,
    [definition],
    [Alignment('none', Temperatures())],
    tmp_path / 'out',
    Settings(limit=12, data=data),
  )
  tasks.register(vocabulary, [name], num_samples=12, data=data)
  theirs = evaluate_with_seqio(
    name, {'inputs': 3000, 'targets': 400}, predict, None
  )
  assert 0 < row['value'] < 1
  for measure in (row, *row['other_measures']):
    assert theirs[measure['metric']] == pytest.approx(measure['value'])
    assert (
      theirs[f'{measure["metric"]}_ci95_low'],
      theirs[f'{measure["metric"]}_ci95_high'],
    ) == pytest.approx(measure['ci95'])


def test_seqios_own_evaluator_scores_texts_as_ours(tmp_path):
  words = np.random.default_rng(0).choice(['one', 'two', 'three {', 'a'], 9000)
  (tmp_path / 'long.txt').write_text(' '.join(words))
  name, data = 'perplexity_files_200', str(tmp_path / 'long.txt')
  vocabulary = vocabulary_lib.ByteVocabulary()
  tasks.register(vocabulary, [name], num_samples=5, data=data)

  def log_likelihood(targets):
    assert targets[-1] != vocabulary.eos_id
    return -0.003 * float(np.sum(np.square(targets)))

  def score(dataset, model_feature_shapes=None):
    del model_feature_shapes
    scores = []
    for i, example in dataset.as_numpy_iterator():
      targets = example['decoder_target_tokens']
      scores.append((int(i), log_likelihood(targets[targets > 0])))
    return scores

  theirs = evaluate_with_seqio(
    name, {'inputs': 256, 'targets': 160}, None, score
  )
  definition = generators.get_task(name)
  samples = list(definition.samples(vocabulary.encode, limit=5, data=data))
  quantities = [
    measures.text_quantities(s.target, -log_likelihood(ids), ids)
    for s in samples
    for ids in [vocabulary.encode(s.target)]
  ]
  clusters = [sample.cluster for sample in samples]
  for measure in definition.measures:
    ours = measure.estimate(quantities, clusters)
    if measure.name == 'word_perplexity':
      assert ours.value > 3.4e38 and theirs[measure.name] == np.inf
    else:
      assert theirs[measure.name] == pytest.approx(ours.value)
  assert 'perplexity_ci95_low' not in theirs  # one document has no spread


def test_postprocessing_drops_unknown_marks_as_our_decoding_does():
  model = vocabulary_lib.SentencePieceVocabulary(
    vocabulary_lib.train_sentencepiece(['The key is 48213.'] * 99, 400)
  )
  theirs = model.to_seqio()
  unknown = [model.unk_id]
  one, two = model.encode('key 12'), model.encode('345')
  for ids in (
    one + unknown + two,
    unknown + one,
    one + unknown,
    unknown * 2 + two,
  ):
    text = theirs.decode(ids)
    assert '⁇' in text
    # A space in front may be left, which no metric counts.
    assert registration.postprocess(text).lstrip() == model.decode(ids)
  example = {'judged_by': b'{"answers": ["12"]}'}
  assert registration.postprocess('', example, is_target=True) == {
    'answers': ['12']
  }


class TestMixtureOrTask:
  """What a gin file of T5X takes the name of its task from."""

  def test_one_name_registers_and_returns_it(self, vocabulary):
    name = registration.mixture_or_task('passkey_96', vocabulary, num_samples=2)
    assert name == 'passkey_96'
    assert name in seqio.TaskRegistry.names()

  @pytest.mark.parametrize(
    'names',
    ['passkey_96, passkey_97', ['passkey_96', 'passkey_97']],
    ids=['text', 'list'],
  )
  def test_several_are_a_mixture_of_them(self, vocabulary, names):
    name = registration.mixture_or_task(names, vocabulary, num_samples=2)
    again = registration.mixture_or_task(names, vocabulary, num_samples=2)
    assert name == again
    tasks = seqio.get_subtasks(seqio.get_mixture_or_task(name))
    assert [task.name for task in tasks] == ['passkey_96', 'passkey_97']

  def test_a_name_of_somebody_else_is_left_as_it_is(self, vocabulary):
    tasks.register(vocabulary, ['passkey_96'], num_samples=2)
    seqio.MixtureRegistry.add('somebody_elses', ['passkey_96'], 1.0)
    try:
      name = registration.mixture_or_task('somebody_elses', vocabulary)
    finally:
      seqio.MixtureRegistry.remove('somebody_elses')
    assert name == 'somebody_elses'

  def test_a_wrong_name_says_which_is_meant(self, vocabulary):
    with pytest.raises(ValueError, match="Did you mean 'passkey_96'"):
      registration.mixture_or_task('passkei_96', vocabulary)

  def test_a_decoder_alone_reads_no_eos_before_the_answer(self, vocabulary):
    name = registration.mixture_or_task(
      'passkey_98', vocabulary, num_samples=1, decoder_only=True
    )
    task = seqio.get_mixture_or_task(name)
    (sample,) = task.get_dataset(None, 'test').as_numpy_iterator()
    eos = vocabulary.eos_id
    assert eos not in sample['inputs']
    assert sample['targets'][-1] == eos
