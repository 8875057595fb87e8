"""Alignments that measure the model: found once, kept, on other text."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from t5_align import (
  aligning,
  load_model,
  opening,
  provenance,
  results,
  temperature,
)
from t5_align.alignment import oracle
from t5_align.alignment.calibration import CalibrationOptions
from t5_align.model import Model
from t5_align.preparation import Preparation
from t5_align.prompts import Settings
from t5_align.tasks.generators import task as task_lib
from t5_align.temperature import Law, TemperatureError, Temperatures
from tests.tiny_model import save_tiny_model

TRAINING_LENGTH = 128
MEASURED = (
  'entropy',
  'maximum_probability',
  'entropy_closed_form',
  'maximum_probability_closed_form',
  'oracle',
)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp('model')
  save_tiny_model(folder)
  return load_model(folder, training_length=TRAINING_LENGTH)


def make_context(model, folder, task='passkey_160', split='test', **options):
  """Return the context of a run of two samples, and what it announced."""
  settings = Settings(limit=2, split=split)
  said = []
  context = aligning.Context(
    Preparation([task_lib.get_task(task)], model, settings),
    settings,
    CalibrationOptions(num_sequences=2, **options),
    pathlib.Path(folder),
    lambda split: opening.open_text(model, None, split, 0),
    said.append,
  )
  return context, said


def nothing_is_found(monkeypatch):
  def refuse(*_, **__):
    raise AssertionError('this was found before')

  monkeypatch.setattr(Model, 'calibrate', refuse)
  monkeypatch.setattr(oracle, 'search', refuse)


def write_results(folder, name):
  """Write what `evaluation` writes before its first batch."""
  results.write_results(folder, {'temperatures': {name: {}}}, [])


@pytest.mark.slow
@pytest.mark.parametrize('name', MEASURED)
def test_found_once_and_kept(model, tmp_path, monkeypatch, name):
  context, said = make_context(model, tmp_path)
  found = aligning.parse_alignment(name, model, context)
  assert found.name == name and len(said) == 1
  path = tmp_path / 'alignments' / f'{name}.json'
  assert [*path.parent.iterdir()] == [path]
  assert temperature.load(path) == found.temperatures
  if name == 'oracle':
    assert 0.2 <= found.temperatures.encoder <= 1.5
  else:
    law = found.temperatures.encoder
    assert law.name == 'interpolated'
    assert law.coefficients[:2] == (TRAINING_LENGTH, 1.0)
    assert law.coefficients[2] <= context.longest and law.coefficients[3] < 1
  write_results(tmp_path, name)
  nothing_is_found(monkeypatch)
  again, said = make_context(model, tmp_path)
  assert aligning.parse_alignment(name, model, again) == found
  assert said == []


@pytest.mark.slow
def test_what_attention_is_stays_beside_its_temperatures(
  model, tmp_path, monkeypatch
):
  """For a report: means over layers and heads of all that was measured."""
  calibrations, calibrate = [], Model.calibrate

  def watch(self, *args):
    calibrations.append(calibrate(self, *args))
    return calibrations[-1]

  monkeypatch.setattr(Model, 'calibrate', watch)
  context, _ = make_context(model, tmp_path)
  aligning.parse_alignment('entropy', model, context)
  path = tmp_path / 'alignments' / 'entropy.json'
  record = temperature.load_calibrated(path)[1]
  wanted = calibrations[0].measurements()
  places = [(TRAINING_LENGTH, 'none'), (151, 'none'), (151, 'entropy')]
  for found in (record['attention_statistics'], wanted):
    assert [(each['length'], each['alignment']) for each in found] == places
  for found, each in zip(record['attention_statistics'], wanted):
    assert (found['site'], found['keys']) == ('encoder', each['keys'])
    assert found['entropy_nats'] == np.mean(each['entropy_nats'])
    assert found['maximum_probability'] == np.mean(each['max_probability'])
  (solution,) = record['solutions']
  assert [each['temperature'] for each in record['attention_statistics']] == [
    1,
    1,
    pytest.approx(solution['temperature'], rel=1e-6),  # τ(n) is in float32
  ]


@pytest.mark.parametrize(
  'changes, field',
  [
    ({'granularity': 'layer'}, 'granularity: model, now layer'),
    ({'task': 'passkey_170'}, r'lengths: \[151\], now '),
    ({'split': 'dev'}, 'data'),
  ],
)
def test_other_options_are_refused_before_they_cost_anything(
  model, tmp_path, monkeypatch, changes, field
):
  context, _ = make_context(model, tmp_path)
  first = aligning.parse_alignment('entropy_closed_form', model, context)
  changed, said = make_context(model, tmp_path, **changes)
  write_results(tmp_path, 'entropy_closed_form')
  with monkeypatch.context() as patch:
    nothing_is_found(patch)
    with pytest.raises(provenance.ResumeError, match=f'another {field}'):
      aligning.parse_alignment('entropy_closed_form', model, changed)
  # Nothing was answered yet: then it is found anew.
  write_results(tmp_path, 'none')

  def begin(self, text, lengths, options):
    raise KeyboardInterrupt

  monkeypatch.setattr(Model, 'calibrate', begin)
  with pytest.raises(KeyboardInterrupt):
    aligning.parse_alignment('entropy_closed_form', model, changed)
  assert len(said) == 1
  path = tmp_path / 'alignments' / 'entropy_closed_form.json'
  assert temperature.load(path) == first.temperatures


def test_decoder_beside_an_encoder_follows_no_length(
  model, tmp_path, monkeypatch
):
  nothing_is_found(monkeypatch)
  context, _ = make_context(model, tmp_path, sites=('encoder', 'decoder'))
  with pytest.raises(ValueError, match='sites has the decoder.* Leave it out'):
    aligning.parse_alignment('entropy', model, context)


def test_oracle_of_other_tasks_is_refused(model, tmp_path, monkeypatch):
  monkeypatch.setattr(
    oracle, 'search', lambda *_: (Temperatures(encoder=0.5), -1.0)
  )
  context, _ = make_context(model, tmp_path)
  aligning.parse_alignment('oracle', model, context)
  write_results(tmp_path, 'oracle')
  context, _ = make_context(model, tmp_path, 'passkey_170')
  with pytest.raises(provenance.ResumeError, match='another tasks'):
    aligning.parse_alignment('oracle', model, context)


@pytest.mark.parametrize(
  'evaluated, measured', [('test', 'dev'), ('dev', 'train'), ('train', 'dev')]
)
@pytest.mark.parametrize('name', ['entropy', 'oracle'])
def test_evaluated_samples_are_never_measured(
  model, tmp_path, monkeypatch, name, evaluated, measured
):
  context, _ = make_context(model, tmp_path, split=evaluated)
  assert list(context.prepared)  # what is evaluated is read in another thread
  splits, samples = set(), task_lib.TaskDefinition.samples

  def watch(self, *args, split='test', **kwargs):
    splits.add(split)
    return samples(self, *args, split=split, **kwargs)

  monkeypatch.setattr(task_lib.TaskDefinition, 'samples', watch)

  def draw(self, text, lengths, options):
    assert text.draw(lengths[-1], options.num_sequences).inputs
    raise KeyboardInterrupt

  def score(objective, sites):
    objective(Temperatures(**dict.fromkeys(sites, 0.5)))
    raise KeyboardInterrupt

  monkeypatch.setattr(Model, 'calibrate', draw)
  monkeypatch.setattr(oracle, 'search', score)
  with pytest.raises(KeyboardInterrupt):
    aligning.parse_alignment(name, model, context)
  assert splits == {measured}


def test_nothing_longer_than_in_training(model, tmp_path, monkeypatch):
  nothing_is_found(monkeypatch)
  context, _ = make_context(model, tmp_path, 'passkey_120')
  found = aligning.parse_alignment('entropy', model, context)
  assert found.temperatures == Temperatures()
  assert not (tmp_path / 'alignments').exists()


@pytest.mark.parametrize('name', ['log_n', 'ssmax', 'yarn', 'infoscale'])
def test_rules_are_laws_of_the_encoder(model, name):
  found = aligning.parse_alignment(name, model)
  assert found.temperatures == Temperatures(encoder=found.temperatures.encoder)
  assert isinstance(found.temperatures.encoder, Law)
  mean = temperature.mean_over_heads
  at_training, longer = mean(found.temperatures.encoder, [128.0, 1024.0])
  assert at_training == pytest.approx(1, abs=1e-6) and longer < 1


@pytest.mark.parametrize('value', ['log_n', 0.8])
def test_rules_and_numbers_take_the_sites_of_the_run(model, tmp_path, value):
  context, _ = make_context(model, tmp_path, sites=('encoder', 'cross'))
  found = aligning.parse_alignment(value, model, context).temperatures
  assert found == Temperatures(encoder=found.encoder, cross=found.encoder)
  assert found.encoder != 1


def other_weights(model):
  params = model.params | {'encoder': dict(model.params['encoder'])}
  norm = params['encoder']['encoder_norm']
  params['encoder']['encoder_norm'] = {'scale': np.array(norm['scale']) * 2}
  checkpoint = dataclasses.replace(model.checkpoint, params=params)
  return dataclasses.replace(model, checkpoint=checkpoint)


def test_temperatures_of_other_weights(model, tmp_path):
  context, _ = make_context(model, tmp_path)
  found = aligning.parse_alignment('entropy_closed_form', model, context)
  path = tmp_path / 'alignments' / 'entropy_closed_form.json'
  by_file = aligning.parse_alignment(str(path), model)
  assert by_file.temperatures == found.temperatures
  assert by_file.name.startswith('entropy_closed_form.json@')
  other = other_weights(model)
  name = str(model.checkpoint.path)
  for value in (str(path), 'entropy_closed_form'):
    with pytest.raises(TemperatureError, match='on other weights') as error:
      aligning.parse_alignment(value, other, context)
    assert name in str(error.value) and 'Calibrate with' in str(error.value)
  # As does the folder of the other model, if the file is put there.
  other.save(tmp_path / 'other')
  load_model(tmp_path / 'other')
  shutil.copy(path, tmp_path / 'other' / 'temperatures.json')
  with pytest.raises(TemperatureError, match='on other weights'):
    load_model(tmp_path / 'other')


@pytest.mark.parametrize(
  'content, message',
  [
    ({'version': 2, 'temperatures': {}}, 'version 2, wanted 1'),
    ({'version': 1, 'temperatures': {'encoder': [1, 1]}}, '2 layers'),
    ({'version': 1, 'temperatures': {'encoder': [[1, 1, 1]]}}, '3 heads'),
    ({'version': 1, 'calibration': {}}, 'wanted an object with'),
    (
      {
        'version': 1,
        'temperatures': {},
        'calibration': {'weights': 'f' * 64, 'checkpoint': 'somewhere'},
      },
      'other weights: ffffffff of another model',
    ),
  ],
)
def test_files_that_do_not_fit(model, tmp_path, content, message):
  path = tmp_path / 'mine.json'
  path.write_text(json.dumps(content))
  with pytest.raises(TemperatureError, match=message):
    aligning.parse_alignment(str(path), model)


def test_file_by_hand(model, tmp_path):
  path = tmp_path / 'mine.json'
  path.write_text('{"version": 1, "temperatures": {"encoder": 0.8}}')
  found = aligning.parse_alignment(str(path), model)
  assert found.temperatures == Temperatures(encoder=0.8)
