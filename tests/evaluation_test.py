"""Running tasks: resume, limits, failures, headers."""

import dataclasses
import json
import time
import types

import pytest

from t5_align import (
  aligning,
  evaluation,
  prompts,
  provenance,
  results,
  temperature,
)
from t5_align.prompts import Settings
from t5_align.tasks.generators import task as task_lib
from tests.fake_model import fake_model


def run(
  model,
  output_dir,
  names=('passkey_400',),
  alignments=('none', 0.8),
  **settings,
):
  settings = {'limit': 12, 'batch_size': 4} | settings
  return evaluation.evaluate(
    model,
    [task_lib.get_task(name) for name in names],
    [aligning.parse_alignment(value, model) for value in alignments],
    output_dir,
    Settings(**settings),
  )


def sample_files(output_dir):
  """The files' rows, less the seconds, in order."""
  contents = {}
  for path in sorted((output_dir / 'samples').iterdir()):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(row.pop('seconds') >= 0 for row in rows)
    contents[path.name] = rows
  return contents


def test_rows_header_and_samples(tmp_path):
  header, rows = run(fake_model(), tmp_path, alignments=(0.8, 'none'))
  assert results.read_results(tmp_path) == (header, rows)
  none, sharp = rows
  assert (none['alignment'], sharp['alignment']) == ('none', 'temperature=0.8')
  assert set(none) == {
    'task', 'family', 'numbers', 'size', 'unit', 'length', 'alignment',
    'metric', 'higher_is_better', 'value', 'stderr', 'ci95', 'ci_method', 'n',
    'n_clusters', 'n_failed', 'n_truncated', 'n_lossy', 'difference',
    'other_measures',
  }  # fmt: skip
  assert none['value'] < 1 and sharp['value'] == 1
  assert sharp['difference']['value'] == pytest.approx(1 - none['value'])
  assert none['difference'] is None
  assert {
    'package', 'jax', 'jaxlib', 'device', 'mesh', 'dtype', 'attention',
    'checkpoint', 'tokenizer_hash', 'temperatures', 'config_hash', 'seed',
    'git_commit', 'date',
  } <= set(header)  # fmt: skip
  assert header['temperatures']['temperature=0.8'] == {
    'encoder': 0.8, 'decoder': 1.0, 'cross': 1.0,
  }  # fmt: skip
  sample = sample_files(tmp_path)['passkey_400.none.jsonl'][0]
  assert list(sample) == [
    'id', 'task', 'prompt_tokens', 'truncated_tokens', 'lost_characters',
    'depth', 'cluster', 'target', 'prediction', 'score', 'quantities',
    'finite', 'prompt_hash',
  ]  # fmt: skip
  assert 300 < sample['prompt_tokens'] <= 400


@pytest.mark.parametrize('interrupt_at', range(6))
def test_interrupted_run_continues(tmp_path, interrupt_at):
  run(fake_model(), tmp_path / 'whole')
  model = fake_model(interrupt_at=interrupt_at)
  with pytest.raises(KeyboardInterrupt):
    run(model, tmp_path / 'halves')
  model = fake_model()
  run(model, tmp_path / 'halves')
  assert model.inference.num_calls == 6 - interrupt_at
  assert sample_files(tmp_path / 'whole') == sample_files(tmp_path / 'halves')
  whole, halves = (
    results.read_results(tmp_path / name)[1] for name in ('whole', 'halves')
  )
  assert whole == halves


@pytest.mark.parametrize('cut', [1, 30, 400, 1100])
def test_torn_line_is_answered_again(tmp_path, cut):
  run(fake_model(), tmp_path)
  whole = sample_files(tmp_path)
  path = tmp_path / 'samples' / 'passkey_400.none.jsonl'
  content = path.read_bytes()
  path.write_bytes(content[:-cut])
  run(fake_model(), tmp_path)
  assert sample_files(tmp_path) == whole
  assert path.read_bytes().count(b'\n') == 12


def test_finished_run_computes_nothing(tmp_path):
  run(fake_model(), tmp_path)
  model = fake_model(interrupt_at=0)
  run(model, tmp_path)
  assert model.inference.num_calls == 0


def test_a_second_run_adds_to_the_first(tmp_path):
  run(fake_model(), tmp_path, alignments=('none',))
  header, rows = run(fake_model(), tmp_path, alignments=(0.5,), limit=16)
  assert [row['alignment'] for row in rows] == ['none', 'temperature=0.5']
  assert [row['n'] for row in rows] == [12, 16]
  assert rows[1]['difference']['n'] == 12
  assert set(header['temperatures']) == {'none', 'temperature=0.5'}


def test_a_lower_limit_than_before_leaves_samples_behind_those_of_the_row(
  tmp_path,
):
  run(fake_model(), tmp_path / 'few', limit=4)
  run(fake_model(), tmp_path / 'many', limit=20)
  _, rows = run(fake_model(), tmp_path / 'many', limit=4)
  few, many = sample_files(tmp_path / 'few'), sample_files(tmp_path / 'many')
  for row in rows:
    name = f'{row["task"]}.{row["alignment"]}.jsonl'
    assert len(many[name]) == 20 and many[name][:4] == few[name]
    found = results.read_row_samples(tmp_path / 'many', row)
    assert [sample['id'] for sample in found] == [s['id'] for s in few[name]]


def test_what_is_asked_for_twice_is_answered_once(tmp_path):
  model = fake_model()
  names = ('passkey_400', 'passkey_400')
  _, rows = run(model, tmp_path, names, alignments=('none', 0.8, '0.80'))
  assert [row['alignment'] for row in rows] == ['none', 'temperature=0.8']
  assert model.inference.num_calls == 6


def change_weights(model):
  model.checkpoint.content_hash = '1' * 64


def change_vocabulary(model):
  model.vocabulary.hash = 'another'


def change_dtype(model):
  model.config = dataclasses.replace(model.config, dtype='bfloat16')


def change_activations(model):
  model.config = dataclasses.replace(
    model.config, mlp_activations=('gelu', 'linear')
  )


@pytest.mark.parametrize(
  'change, settings, field',
  [
    (change_weights, {}, 'checkpoint.content_hash'),
    (change_vocabulary, {}, 'tokenizer_hash'),
    (change_dtype, {}, 'dtype'),
    (change_activations, {}, 'model.mlp_activations'),
    (None, {'seed': 1}, 'settings.seed'),
    (None, {'max_new_tokens': 5}, 'tasks.passkey_400.max_new_tokens'),
    (
      None,
      {'max_input_tokens': 500},
      'settings.max_input_tokens',
    ),
    (None, {'template': 'register'}, 'tasks.passkey_400.samples'),
  ],
)
def test_another_configuration_is_refused(tmp_path, change, settings, field):
  run(fake_model(), tmp_path)
  before = (tmp_path / 'results.json').read_bytes()
  if 'template' in settings:
    family = task_lib.get_family('passkey')
    settings = {'template': family.templates[1].name}
  model = fake_model()
  if change is not None:
    change(model)
  with pytest.raises(provenance.ResumeError, match=f'another {field}:'):
    run(model, tmp_path, **settings)
  assert (tmp_path / 'results.json').read_bytes() == before


def test_changed_task_version_is_refused(tmp_path):
  run(fake_model(), tmp_path)
  header, rows = results.read_results(tmp_path)
  header['tasks']['passkey_400']['version'] = '0.1'
  results.write_results(tmp_path, header, rows)
  with pytest.raises(provenance.ResumeError, match=r'passkey_400\.version'):
    run(fake_model(), tmp_path)


def test_samples_without_results_are_refused(tmp_path):
  run(fake_model(), tmp_path)
  (tmp_path / 'results.json').unlink()
  with pytest.raises(results.ResultsError, match='nothing says what made'):
    run(fake_model(), tmp_path)


def test_batch_size_changes_nothing(tmp_path):
  run(fake_model(), tmp_path / 'a')
  run(fake_model(), tmp_path / 'b', batch_size=5)
  assert sample_files(tmp_path / 'a') == sample_files(tmp_path / 'b')


def test_rows_are_made_while_the_next_task_is_asked(tmp_path, monkeypatch):
  model, make_row = fake_model(), results.make_row
  names = ('passkey_400', 'passkey_500')
  went_on = []

  def wait_for_the_next_task(task, *arguments):
    if task.name == names[0]:
      deadline = time.monotonic() + 10
      while model.inference.num_calls < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
      went_on.append(model.inference.num_calls >= 4)
    return make_row(task, *arguments)

  monkeypatch.setattr(results, 'make_row', wait_for_the_next_task)
  _, rows = run(model, tmp_path, names, alignments=('none',))
  assert went_on == [True]
  assert [row['task'] for row in rows] == list(names)


def test_nothing_is_written_after_an_error_of_writing(tmp_path, monkeypatch):
  num_rows, to_json = 0, results.to_json

  def fill_the_disk(value, indent=None):
    nonlocal num_rows
    num_rows += isinstance(value, dict) and 'prediction' in value
    if num_rows == 6:
      raise OSError('disk full')
    return to_json(value, indent)

  monkeypatch.setattr(results, 'to_json', fill_the_disk)
  with pytest.raises(OSError, match='disk full'):
    run(fake_model(), tmp_path, limit=40)
  (rows,) = sample_files(tmp_path).values()
  assert len(rows) == 4
  monkeypatch.undo()
  run(fake_model(), tmp_path, limit=40)
  assert {len(r) for r in sample_files(tmp_path).values()} == {40}


def test_failed_samples_are_wrong_and_counted(tmp_path):
  model = fake_model(fail=lambda text: True)
  _, rows = run(model, tmp_path)
  for row in rows:
    assert row['value'] == 0 and row['n_failed'] == row['n'] == 12
  assert not any(
    sample['finite']
    for file in sample_files(tmp_path).values()
    for sample in file
  )


def test_prompt_over_the_limit_names_sample_tokens_and_limit(tmp_path):
  with pytest.raises(prompts.PromptTooLongError) as error:
    run(fake_model(), tmp_path, max_input_tokens=100)
  assert 'passkey_400-test-0000' in str(error.value)
  assert 'max_input_tokens=100' in str(error.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('truncation', ['left', 'right', 'middle'])
def test_truncation_is_counted(tmp_path, truncation):
  _, rows = run(
    fake_model(), tmp_path, max_input_tokens=100, truncation=truncation
  )
  assert all(row['n_truncated'] == row['n'] for row in rows)
  for sample in sample_files(tmp_path)['passkey_400.none.jsonl']:
    assert sample['truncated_tokens'] == sample['prompt_tokens'] - 100


class Letters:
  """One token a letter."""

  eos_id = 1

  def encode(self, text):
    return [ord(c) for c in text]

  def decode(self, ids):
    return ''.join(map(chr, ids))

  def lost_characters(self, text):
    return ''


def letters_task(text):
  """A task with one sample, whose prompt is the text."""
  sample = task_lib.Sample('a', text, '', ('',), None)
  family = dataclasses.replace(
    task_lib.get_family('passkey'), draw=lambda *_: sample
  )
  return task_lib.TaskDefinition('letters_1', {'tokens': 1}, family)


@pytest.mark.parametrize(
  'truncation, decoder_only, kept',
  [
    ('left', False, 'defgh$'),
    ('right', False, 'abcde$'),
    ('middle', False, 'abcgh$'),
    # An answer of two tokens shares the window of six.
    ('left', True, 'efgh'),
    ('middle', True, 'abgh'),
  ],
)
def test_where_a_prompt_is_cut(truncation, decoder_only, kept):
  model = types.SimpleNamespace(
    vocabulary=Letters(),
    checkpoint=types.SimpleNamespace(decoder_only=decoder_only),
  )
  settings = Settings(
    limit=1, max_input_tokens=6, truncation=truncation, max_new_tokens=2
  )
  task = letters_task('abcdefgh')
  prompt = prompts.prepare(task, model, settings).prompts[0]
  text = ''.join('$' if t == 1 else chr(t) for t in prompt.tokens)
  assert text == kept
  assert prompt.prompt_tokens == (8 if decoder_only else 9)
  assert prompt.truncated_tokens == (4 if decoder_only else 3)


def test_an_answer_that_fills_the_window_is_refused():
  model = types.SimpleNamespace(
    vocabulary=Letters(), checkpoint=types.SimpleNamespace(decoder_only=True)
  )
  settings = Settings(limit=1, max_input_tokens=9, max_new_tokens=4)
  with pytest.raises(prompts.PromptTooLongError, match='12 tokens, 4 of them'):
    prompts.prepare(letters_task('abcdefgh'), model, settings)
  settings = dataclasses.replace(settings, max_new_tokens=9)
  with pytest.raises(prompts.PromptTooLongError, match='no room'):
    prompts.prepare(letters_task('abcdefgh'), model, settings)


@pytest.mark.parametrize(
  'settings',
  [
    {'limit': 0},
    {'batch_size': 0},
    {'max_input_tokens': -1},
    {'truncation': 'up', 'max_input_tokens': 5},
    {'truncation': 'left'},
  ],
)
def test_bad_settings(settings):
  with pytest.raises(ValueError, match=f'{next(iter(settings))}'):
    Settings(**settings)


def test_published_data_is_read_and_decides_the_samples(tmp_path):
  record = {
    'random_idx': ['swift-key', 0],
    'expected_number': 123,
    'num_lines': 1,
    'correct_line': 'line swift-key: REGISTER_CONTENT is <123>\n',
    'prompt': 'line swift-key: REGISTER_CONTENT is <123>\nWhich? ',
  }
  data = tmp_path / '1_lines.jsonl'
  data.write_text(json.dumps(record) + '\n')
  names = ('line_retrieval_1',)
  header, rows = run(fake_model(), tmp_path / 'out', names, data=str(data))
  assert rows[1]['n'] == 1
  assert header['lost_characters'] == {'line_retrieval_1': '<'}
  data.write_text(json.dumps(record | {'prompt': 'no?'}) + '\n')
  with pytest.raises(provenance.ResumeError, match='with another prompt'):
    run(fake_model(), tmp_path / 'out', names, data=str(data))
  data.write_text('')
  with pytest.raises(prompts.DataError):
    run(fake_model(), tmp_path / 'out2', names, data=str(data))
  data.write_text(json.dumps(record) + '\nnot json\n')
  with pytest.raises(prompts.DataError, match='1_lines.jsonl:2'):
    run(fake_model(), tmp_path / 'out2', names, data=str(data))


def test_alignments(tmp_path):
  model = fake_model()
  parse = aligning.parse_alignment
  assert parse('none', model).temperatures == temperature.Temperatures()
  sharp = temperature.Temperatures(encoder=0.8)
  assert parse('0.80', model) == aligning.Alignment('temperature=0.8', sharp)
  law = parse('log_n', model).temperatures.encoder
  assert law == temperature.Law('log_n', (128.0,))
  path = tmp_path / 'mine.json'
  temperature.save(path, sharp)
  from_file = parse(str(path), model)
  assert from_file.temperatures == sharp
  assert from_file.name.startswith('mine.json@')
  temperature.save(path, temperature.Temperatures(encoder=0.7))
  assert parse(str(path), model).name != from_file.name
  model.checkpoint.decoder_only = True
  assert parse(0.5, model).temperatures == temperature.Temperatures(decoder=0.5)


@pytest.mark.parametrize(
  'value, message',
  [
    ('0', 'can not divide'),
    ('-0.5', 'can not divide'),
    ('nan', 'can not divide'),
    ('inf', 'can not divide'),
    ('lgo_n', "did you mean 'log_n'"),
    ('missing.json', 'missing.json'),
  ],
)
def test_bad_alignments(value, message):
  with pytest.raises(ValueError, match=message):
    aligning.parse_alignment(value, fake_model())


def test_strategies_need_a_context():
  with pytest.raises(ValueError, match="'entropy': a calibration needs"):
    aligning.parse_alignment('entropy', fake_model())


def test_log_n_needs_a_training_length():
  model = fake_model()
  model.training_length = None
  with pytest.raises(ValueError, match='trained at'):
    aligning.parse_alignment('log_n', model)
