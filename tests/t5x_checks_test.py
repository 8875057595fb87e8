"""What T5X would be silent about is one error; T5X itself isn't needed."""

import dataclasses
import pathlib
import sys
from typing import Any

import gin
import numpy as np
import pytest

from t5_align import checkpoints, network, t5x_checkpoints, t5x_checks
from t5_align.checkpoints import CheckpointError
from t5_align.temperature import Temperatures
from tests.random_parameters import random_parameters

SIZES: dict[str, Any] = dict(
  vocab_size=24,
  emb_dim=8,
  num_heads=2,
  num_encoder_layers=2,
  num_decoder_layers=1,
  head_dim=4,
  mlp_dim=16,
)


@dataclasses.dataclass
class Restore:
  """A t5x.utils.RestoreCheckpointConfig."""

  path: Any
  mode: str = 'specific'
  assignment_map: Any = None
  fallback_to_scratch: bool = False
  state_transformation_fns: Any = ()


@dataclasses.dataclass
class Dataset:
  """A t5x.utils.DatasetConfig."""

  mixture_or_task_name: str
  task_feature_lengths: dict[str, int] | None
  split: str = 'test'
  use_cached: bool = False
  module: str | None = None


@dataclasses.dataclass
class Model:
  """A t5x.models.EncoderDecoderModel."""

  module: Any


def model_of(**fields: Any) -> Model:
  return Model(network.Transformer(network.T5Config(**{**SIZES, **fields})))


@pytest.fixture(scope='module')
def params():
  return random_parameters(model_of().module.config)


@pytest.fixture
def steps(tmp_path, params) -> pathlib.Path:
  """A folder with checkpoint_900 and checkpoint_1000."""
  folder = tmp_path / 'steps'
  for step in (900, 1000):
    checkpoints.save_t5x(folder, params, step)
  return folder


# What a gin file of a run says, up to its network.
GIN = """
from __gin__ import dynamic_registration
import __main__ as eval_script
from t5_align import network
from t5_align import t5x_checks
from t5_align import temperature
CHECKPOINT_PATH = 'x'
TASK_FEATURE_LENGTHS = None
MIXTURE_OR_TASK_MODULE = None
DROPOUT_RATE = 0.0
MODEL = @network.Transformer()
eval_script.evaluate.model = %MODEL
eval_script.evaluate.task_feature_lengths = %TASK_FEATURE_LENGTHS
eval_script.evaluate.restore_checkpoint_cfg = @t5x_checks.checked_restore()
t5x_checks.checked_restore.model = %MODEL
t5x_checks.checked_restore.restore = %CHECKPOINT_PATH
network.Transformer.config = @network.T5Config()
network.T5Config.vocab_size = 24
network.T5Config.dropout_rate = 0.1
"""
REFERRED = """
network.T5Config.temperatures = @temperature.Temperatures()
temperature.Temperatures.encoder = 0.5
"""


def evaluate(model, task_feature_lengths, restore_checkpoint_cfg):
  """As in t5x/eval.py, which is run as a program."""
  del model, task_feature_lengths, restore_checkpoint_cfg


gin.configurable(evaluate, module='__main__')


def parse(monkeypatch, *texts: str, flags=()):
  """What T5X does with its flags."""
  main = sys.modules['__main__']
  monkeypatch.setattr(main, 'evaluate', evaluate, raising=False)
  monkeypatch.setattr(sys, 'argv', ['eval', *flags])
  gin.clear_config()
  gin.parse_config('\n'.join(texts))
  gin.finalize()


@pytest.fixture(autouse=True)
def forget_gin():
  yield
  gin.clear_config()


class TestGin:
  def test_a_sound_configuration_passes(self, monkeypatch):
    parse(monkeypatch, GIN, REFERRED)

  def test_a_misspelt_macro(self, monkeypatch):
    # Also in a file: one letter is no accident.
    with pytest.raises(ValueError, match="mean 'TASK_FEATURE_LENGTHS'"):
      parse(monkeypatch, GIN, "TASK_FEATURE_LENGHTS = {'inputs': 8}")

  def test_a_macro_of_the_command_line_that_nothing_reads(self, monkeypatch):
    flag = '--gin.BATCH_SIZE=8'
    with pytest.raises(ValueError, match='^BATCH_SIZE is bound, but nothing'):
      parse(monkeypatch, GIN, 'BATCH_SIZE = 8', flags=[flag])
    parse(monkeypatch, GIN, 'BATCH_SIZE = 8')

  def test_macros_of_flags(self):
    arguments = ['--gin.A=1', '--gin_bindings=B = 2', '--gin.a.b=3', '--c=4']
    assert t5x_checks.macros_of_flags(arguments) == ['A', 'B']

  def test_temperatures_that_the_network_does_not_take(self, monkeypatch):
    with pytest.raises(ValueError, match=r'Temperatures.encoder is bound to'):
      parse(monkeypatch, GIN, 'temperature.Temperatures.encoder = 0.5')

  def test_a_knob_that_is_only_mentioned(self, monkeypatch):
    parse(monkeypatch, GIN, 'temperature.Temperatures.encoder = 1.0')
    parse(monkeypatch, GIN, 'temperature.load.path = None')

  def test_a_config_that_the_network_does_not_take(self, monkeypatch):
    text = GIN.replace('= @network.Tra', '= @network.DecoderOnlyTra')
    with pytest.raises(ValueError, match='does not use t5_align.network.T'):
      parse(monkeypatch, text)

  def test_another_program_s_gin_is_left_alone(self, monkeypatch):
    lines = [line for line in GIN.splitlines() if 'checked' not in line]
    text = '\n'.join(lines)
    parse(monkeypatch, text, "TASK_FEATURE_LENGHTS = {'inputs': 8}")


class TestCheckpointFolders:
  def test_what_each_mode_takes(self, steps):
    def names(path, mode):
      found = t5x_checkpoints.checkpoint_folders(path, mode)
      return [folder.name for folder in found]

    one = str(steps / 'checkpoint_900')
    assert names(one, 'specific') == ['checkpoint_900']
    assert names([one, one], 'specific') == ['checkpoint_900'] * 2
    assert names(str(steps), 'latest') == ['checkpoint_1000']
    assert names(str(steps), 'all') == ['checkpoint_900', 'checkpoint_1000']

  def test_a_checkpoint_that_is_not_there(self, steps):
    wrong = steps / 'checkpoint_901'
    with pytest.raises(ValueError, match="did you mean 'checkpoint_900'"):
      t5x_checkpoints.checkpoint_folders(str(wrong), 'specific')
    assert not wrong.exists()

  def test_a_folder_of_it_that_is_not_there(self, steps):
    wrong = steps.parent / 'step' / 'checkpoint_900'
    with pytest.raises(ValueError, match="has no 'step'; did you mean 'steps'"):
      t5x_checkpoints.checkpoint_folders(str(wrong), 'specific')
    assert not wrong.parent.exists()

  def test_a_folder_for_another_mode(self, steps):
    with pytest.raises(ValueError, match='checkpoint_900, checkpoint_1000: na'):
      t5x_checkpoints.checkpoint_folders(str(steps), 'specific')
    with pytest.raises(ValueError, match="set it to 'specific'"):
      t5x_checkpoints.checkpoint_folders(
        str(steps / 'checkpoint_900'), 'latest'
      )

  def test_a_folder_without_any(self, tmp_path):
    # T5X's eval of a folder without steps ends well and has done nothing.
    with pytest.raises(ValueError, match='has no T5X checkpoint'):
      t5x_checkpoints.checkpoint_folders(str(tmp_path), 'latest')
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(ValueError, match='save_t5x'):
      t5x_checkpoints.checkpoint_folders(str(tmp_path), 'specific')

  def test_a_tensorflow_checkpoint_passes(self, tmp_path):
    (tmp_path / 'model.ckpt-1000.index').write_text('')
    path = str(tmp_path / 'model.ckpt-1000')
    assert t5x_checkpoints.checkpoint_folders(path, 'specific') == []


def check_run(path, model, **fields):
  """A run that starts from a checkpoint, in its folder's neighbour."""
  restore = Restore(str(path), **fields)
  output_dir = str(path.parent / 'out')
  assert t5x_checks.checked_restore(model, output_dir, restore) is restore


class TestShapes:
  def test_the_same_network_passes(self, steps):
    check_run(steps / 'checkpoint_900', model_of())

  @pytest.mark.parametrize(
    ('fields', 'message'),
    [
      (dict(num_encoder_layers=1), 'has 2 encoder layers, the config 1'),
      (dict(num_decoder_layers=3), 'has 1 decoder layers, the config 3'),
      (dict(emb_dim=16), 'misshaped .*emb_dim=8'),
      (dict(logits_via_embedding=True), 'extra decoder/logits_dense'),
    ],
  )
  def test_another_network(self, steps, fields: dict[str, Any], message):
    with pytest.raises(CheckpointError, match=message):
      check_run(steps / 'checkpoint_900', model_of(**fields))

  def test_another_kind_of_network(self, steps):
    config = network.T5Config(**SIZES)
    model = Model(network.DecoderOnlyTransformer(config))
    with pytest.raises(ValueError, match='is an encoder-decoder, MODEL is a d'):
      check_run(steps / 'checkpoint_900', model)

  def test_a_new_optimizer_does_not_hide_it(self, steps):
    """Without the optimizer's state T5X makes up what else is missing."""
    rule = [('state/param_states/.*', None)]
    with pytest.raises(CheckpointError, match='has 2 encoder layers'):
      check_run(
        steps / 'checkpoint_900',
        model_of(num_encoder_layers=3),
        fallback_to_scratch=True,
        assignment_map=rule,
        state_transformation_fns=[print],
      )

  def test_weights_that_are_renamed_are_not_compared(self, steps):
    check_run(
      steps / 'checkpoint_900',
      model_of(num_encoder_layers=3),
      fallback_to_scratch=True,
      assignment_map=[('target/encoder/layers_2/.*', None)],
      state_transformation_fns=[print],
    )

  def test_a_network_that_is_not_ours_is_not_compared(self, steps):
    check_run(steps / 'checkpoint_900', Model(object()))


class TestOutputFolder:
  def run(self, folder, temperatures, step=1, **settings):
    model = model_of(temperatures=temperatures)
    t5x_checks.note_settings(
      folder,
      t5x_checks._settings(
        model, Restore(f'/models/checkpoint_{step}'), None, True
      ),
    )

  def test_results_of_other_temperatures(self, tmp_path):
    self.run(tmp_path / 'out', Temperatures(encoder=0.5))
    (tmp_path / 'out' / 'inference_eval').mkdir()
    self.run(tmp_path / 'out', Temperatures(encoder=0.5), step=2)
    with pytest.raises(ValueError, match='temperatures.encoder=0.5, now 1.0'):
      self.run(tmp_path / 'out', Temperatures())

  def test_a_run_without_results_is_forgotten(self, tmp_path):
    self.run(tmp_path, Temperatures(encoder=0.5))
    self.run(tmp_path, Temperatures())
    (tmp_path / 'x.jsonl').write_text('')
    self.run(tmp_path, Temperatures())

  def test_results_of_unknown_temperatures(self, tmp_path):
    (tmp_path / 'inference_eval').mkdir()
    with pytest.raises(ValueError, match='nothing says under which temper'):
      self.run(tmp_path, Temperatures())

  def test_a_training_that_began_without_a_note_goes_on(self, tmp_path):
    (tmp_path / 'checkpoint_5').mkdir()
    self.run(tmp_path, Temperatures())

  def test_infer_keeps_one_step_a_folder(self, steps):
    for step in (900, 1000):
      restore = Restore(str(steps / f'checkpoint_{step}'))
      arguments = (model_of(), str(steps.parent / 'out'), restore)
      if step == 900:
        t5x_checks.checked_restore(*arguments, steps_apart=False)
        (steps.parent / 'out' / 'passkey-predict.jsonl').write_text('')
      else:
        with pytest.raises(ValueError, match='checkpoint_900.*checkpoint_1000'):
          t5x_checks.checked_restore(*arguments, steps_apart=False)


class TestLengths:
  @pytest.fixture
  def task(self):
    seqio = pytest.importorskip('seqio')
    vocabulary = seqio.ByteVocabulary()
    texts = ['abc', 'abcdefgh', 'abcdefghijkl']
    name = 't5x_checks_test'

    def samples(split, shuffle_files=False, seed=None):
      import tensorflow as tf

      del split, shuffle_files, seed
      ids = [f'sample-{i}' for i in range(len(texts))]
      columns: Any = {
        'id': ids,
        'inputs': texts,
        'targets': ['xy'] * len(texts),
      }
      return tf.data.Dataset.from_tensor_slices(columns)

    seqio.TaskRegistry.add(
      name,
      source=seqio.FunctionDataSource(samples, splits=['test']),
      preprocessors=[
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos_after_trim,
      ],
      output_features={
        key: seqio.Feature(vocabulary) for key in ('inputs', 'targets')
      },
      metric_fns=[],
    )
    yield name
    seqio.TaskRegistry.remove(name)

  def test_samples_that_would_be_cut(self, task, tmp_path):
    dataset = Dataset(task, {'inputs': 8, 'targets': 3})
    message = (
      r'2 of 3, the first is sample-1 with inputs of 9 tokens.*'
      r"Set TASK_FEATURE_LENGTHS={'inputs': 13, 'targets': 3}"
    )
    arguments: dict[str, Any] = dict(output_dir=str(tmp_path), dataset=dataset)
    with pytest.raises(ValueError, match=message):
      t5x_checks.checked_restore(model_of(), **arguments)
    t5x_checks.checked_restore(model_of(), truncation='right', **arguments)

  @pytest.mark.parametrize('lengths', [None, {'inputs': 13, 'targets': 3}])
  def test_samples_that_fit(self, task, lengths):
    t5x_checks.check_lengths(Dataset(task, lengths))

  def test_an_unknown_truncation(self, tmp_path):
    with pytest.raises(ValueError, match="truncation is 'left'"):
      t5x_checks.checked_restore(model_of(), str(tmp_path), truncation='left')


def test_laws_are_noted(tmp_path):
  """A note is JSON, whatever the temperatures are."""
  heads = ((0.5, np.float32(0.75)), (1.0, 1.0))
  model = model_of(temperatures=Temperatures(encoder=heads))
  for _ in range(2):
    t5x_checks.checked_restore(model, str(tmp_path))
    (tmp_path / 'x.jsonl').write_text('')
