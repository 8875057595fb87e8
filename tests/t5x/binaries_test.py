"""T5X's own eval, infer and train, started as a user starts them.

What they find is what we find: the same predictions, scores and metrics, with
and without temperatures, which flags change. Runs are those of gin_configs/t5x,
models are in models/.
"""

from collections.abc import Sequence
import copy
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

import flax.core
import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align import checkpoints, network, temperature
from t5_align import eval as eval_script
from t5_align import model as model_lib
from t5_align import vocabulary as vocabulary_lib
from t5_align.bundled import BUNDLED_MODEL, BUNDLED_MODELS
from t5_align.temperature import Temperatures
from tests import tiny_model

_REASON = 'T5X is not importable; tests/t5x/README.md says how to make it so.'
pytest.importorskip('t5x.eval', reason=_REASON)
seqio = pytest.importorskip('seqio', reason=_REASON)

pytestmark = [
  pytest.mark.slow,
  # T5X and TensorFlow leave files and loops open.
  pytest.mark.filterwarnings('ignore'),
]

MODELS = pathlib.Path(__file__).parent / 'models'
ROOT = MODELS.parents[2]
RUNS = 't5_align/gin_configs/t5x/runs'
TINY, BUNDLED = 'passkey_128', 'passkey_1024'
# What a model's gin file needs to be told.
VOCABULARIES = {
  name: [f'--gin.VOCABULARY_PATH={str(folder / "spiece.model")!r}']
  for name, folder in BUNDLED_MODELS.items()
}
# Both sum in float32, in another order.
TOLERANCE = 1e-5
FEW = ['--gin.registration.mixture_or_task.num_samples=6']
TEMPERATURES = Temperatures(encoder=0.5, decoder=0.7, cross=1.4)
SHARPER = [
  f'--gin.temperature.Temperatures.{site}={getattr(TEMPERATURES, site)}'
  for site in ('encoder', 'decoder', 'cross')
]


def start(binary: str, flags: Sequence[str], **environment: str):
  """Start one of T5X's binaries, its output in a file beside nothing else."""
  path = os.pathsep.join([str(MODELS), str(ROOT), os.environ['PYTHONPATH']])
  kept = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      f't5x.{binary}',
      f'--gin_search_paths={MODELS}',
      *flags,
    ],
    env={**kept, 'PYTHONPATH': path, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def run(binary: str, *flags: str, fails: bool = False, **environment: str):
  """Run a binary to its end and return what it printed."""
  process = start(binary, flags, **environment)
  output, _ = process.communicate(timeout=300)
  assert bool(process.returncode) == fails, output[-4000:]
  return output


def evaluate_flags(model: str, task: str, checkpoint, output_dir) -> list[str]:
  return [
    f'--gin_file={model}.gin',
    f'--gin_file={RUNS}/eval.gin',
    f'--gin.MIXTURE_OR_TASK_NAME={task!r}',
    f'--gin.CHECKPOINT_PATH={str(checkpoint)!r}',
    f'--gin.EVAL_OUTPUT_DIR={str(output_dir)!r}',
    '--gin.BATCH_SIZE=6',
    *FEW,
  ]


def infer(folders, output_dir, *flags: str, model='tiny', **environment: Any):
  """Run infer on a model; return its rows."""
  run(
    'infer',
    f'--gin_file={RUNS}/infer.gin',
    f'--gin_file={model}.gin',
    *[flag for flag in flags if flag.startswith('--gin_file')],
    f'--gin.MIXTURE_OR_TASK_NAME={TINY!r}',
    f'--gin.CHECKPOINT_PATH={str(folders[model])!r}',
    f'--gin.INFER_OUTPUT_DIR={str(output_dir)!r}',
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 16}",
    '--gin.BATCH_SIZE=8',
    *FEW,
    *VOCABULARIES.get(model, []),
    *[flag for flag in flags if not flag.startswith('--gin_file')],
    **environment,
  )
  (file,) = output_dir.glob(f'{TINY}-*.jsonl-00000-of-00001')
  return [json.loads(line) for line in file.read_text().splitlines()]


def scores_of(model, rows):
  """Return what our model gives the targets of infer's rows."""
  inputs = [row['inputs']['inputs_pretokenized'] for row in rows]
  targets = [row['inputs']['targets_pretokenized'] for row in rows]
  return model.score(inputs, targets)


def results_of(output_dir, task: str):
  """Return an evaluation's metrics and rows."""
  folder = pathlib.Path(output_dir) / 'inference_eval'
  metrics = json.loads((folder / f'{task}-metrics.jsonl').read_text())
  (file,) = folder.glob(f'{task}-0*.jsonl')
  return metrics, [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Checkpoints for T5X: 'tiny', 'lm' and the bundled ones; for us 'own'."""
  folder = tmp_path_factory.mktemp('models')
  tiny_model.save_tiny_model(folder / 'own')
  lm = network.DecoderOnlyTransformer(
    network.T5Config(
      vocab_size=384,
      emb_dim=16,
      num_heads=2,
      num_decoder_layers=1,
      head_dim=8,
      mlp_dim=32,
    )
  )
  tokens = jnp.ones((1, 4), jnp.int32)
  variables = lm.init(jax.random.key(0), tokens, tokens, enable_dropout=False)
  params = {
    'tiny': checkpoints.load_checkpoint(folder / 'own').params,
    **{
      name: checkpoints.load_checkpoint(path).params
      for name, path in BUNDLED_MODELS.items()
    },
    'lm': flax.core.unfreeze(variables['params']),
  }
  found = {'own': folder / 'own'}
  for name, tree in params.items():
    checkpoints.save_t5x(folder / name, tree, step=5)
    found[name] = folder / name / 'checkpoint_5'
  return found


class TestScores:
  """infer, mode 'score': the log-likelihood of each target."""

  @pytest.fixture(scope='class')
  @classmethod
  def rows(cls, folders, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp('score')
    return infer(folders, output_dir, "--gin.infer.mode='score'")

  def ours(self, folders, rows, temperatures=None):
    own = model_lib.load_model(folders['own'], temperatures=temperatures)
    return scores_of(own, rows)

  def test_equal_ours(self, folders, rows):
    scores = [row['score'] for row in rows]
    assert len(scores) == 6
    expected = self.ours(folders, rows)
    np.testing.assert_allclose(scores, expected, rtol=TOLERANCE)

  @pytest.mark.parametrize('source', ['sites', 'file'])
  def test_temperatures_of_flags(self, folders, rows, tmp_path, source):
    temperatures, flags = TEMPERATURES, SHARPER
    if source == 'file':
      # One of each layer and head, one of each layer, one for all.
      temperatures = Temperatures(((0.5, 0.9),), (0.7,), 1.4)
      path = tmp_path / 'temperatures.json'
      temperature.save(path, temperatures)
      flags = [
        '--gin.TEMPERATURES=@temperature.load()',
        f'--gin.temperature.load.path={str(path)!r}',
      ]
    flags = ["--gin.infer.mode='score'", *flags]
    sharper = infer(folders, tmp_path / 'out', *flags)
    scores = [row['score'] for row in sharper]
    expected = self.ours(folders, rows, temperatures)
    np.testing.assert_allclose(scores, expected, rtol=TOLERANCE)
    before = [row['score'] for row in rows]
    assert np.abs(np.subtract(scores, before)).min() > 100 * TOLERANCE

  def test_on_a_mesh(self, folders, rows, tmp_path):
    """4 x 2 devices, the model on two of them."""
    sharded = infer(
      folders,
      tmp_path,
      '--gin_file=mesh.gin',
      "--gin.infer.mode='score'",
      XLA_FLAGS='--xla_force_host_platform_device_count=8',
    )
    np.testing.assert_allclose(
      [row['score'] for row in sharded],
      [row['score'] for row in rows],
      rtol=TOLERANCE,
    )


def test_a_model_without_an_encoder_is_prefilled(folders, tmp_path):
  rows = infer(folders, tmp_path, model='lm')
  vocabulary = vocabulary_lib.ByteVocabulary()
  own = model_lib.load_model(folders['lm'].parent)
  prompts = [
    vocabulary.encode(row['inputs']['inputs_pretokenized']) for row in rows
  ]
  # T5X goes on to the end of its window.
  generated = own.inference.generate(prompts, max_new_tokens=48)
  for row, ours in zip(rows, generated, strict=True):
    text = vocabulary.decode(ours.tokens)
    assert text and row['prediction'].startswith(text)


def test_the_bundled_language_model_scores_alike(folders, tmp_path):
  flags = (
    "--gin.infer.mode='score'",
    '--gin.temperature.Temperatures.decoder=0.8',
  )
  rows = infer(folders, tmp_path, *flags, model='bundled_lm')
  own = model_lib.load_model(
    'bundled_lm', temperatures=Temperatures(decoder=0.8)
  )
  scores = [row['score'] for row in rows]
  np.testing.assert_allclose(scores, scores_of(own, rows), rtol=TOLERANCE)


class TestBundledModel:
  """eval: predictions and metrics at eight times the training length."""

  @pytest.mark.parametrize(
    ('temperatures', 'flags'),
    [
      (Temperatures(), []),
      (
        Temperatures(encoder=0.58),
        ['--gin.temperature.Temperatures.encoder=0.58'],
      ),
    ],
    ids=['plain', 'aligned'],
  )
  def test_equals_ours(self, folders, tmp_path, temperatures, flags):
    files = evaluate_flags('bundled', BUNDLED, folders['bundled'], tmp_path)
    vocabulary = str(BUNDLED_MODEL / 'spiece.model')
    run('eval', *files, f'--gin.VOCABULARY_PATH={vocabulary!r}', *flags)
    metrics, rows = results_of(tmp_path, BUNDLED)
    own = model_lib.load_model(BUNDLED_MODEL, temperatures=temperatures)
    generated = own.generate(
      [row['input']['inputs_pretokenized'] for row in rows], max_new_tokens=16
    )
    assert [row['prediction'] for row in rows] == generated
    right = [
      row['target']['answers'][0] in answer
      for row, answer in zip(rows, generated, strict=True)
    ]
    assert metrics['passkey_match'] == pytest.approx(np.mean(right))
    if flags:
      assert np.mean(right) == 1


def test_scores_of_the_bundled_model(folders, tmp_path):
  mode = "--gin.infer.mode='score'"
  rows = infer(folders, tmp_path, mode, model='bundled')
  expected = scores_of(model_lib.load_model(BUNDLED_MODEL), rows)
  # Where an answer is all but certain its score is a difference of logits.
  np.testing.assert_allclose(
    [row['score'] for row in rows],
    expected,
    rtol=TOLERANCE,
    atol=10 * TOLERANCE,
  )


class TestTinyModel:
  """eval beside our own."""

  TASK = 'perplexity_files_256'

  @pytest.fixture(scope='class')
  @classmethod
  def evaluated(cls, folders, tmp_path_factory):
    """The flags of a run, and where its results are."""
    output_dir = tmp_path_factory.mktemp('evaluated')
    flags = evaluate_flags('tiny', cls.TASK, folders['tiny'], output_dir)
    run('eval', *flags)
    return flags, output_dir

  def test_metrics_equal_those_of_our_eval(
    self, folders, evaluated, tmp_path, elsewhere
  ):
    _, output_dir = evaluated
    file = output_dir / 'inference_eval' / f'{self.TASK}-metrics.jsonl'
    theirs = json.loads(file.read_text())
    flags = ['--limit=6', '--batch_size=6', f'--output_dir={tmp_path / "ours"}']
    model = ['--model', str(folders['own'])]
    assert eval_script.main([*model, f'--task={self.TASK}', *flags]) == 0
    results = json.loads((tmp_path / 'ours' / 'results.json').read_text())
    (row,) = results['rows']
    ours = {m['metric']: m['value'] for m in (row, *row['other_measures'])}
    for name in ('perplexity', 'nats_per_token', 'bits_per_byte'):
      assert theirs[name] == pytest.approx(ours[name], rel=TOLERANCE)

  def test_a_folder_keeps_to_its_temperatures(self, evaluated):
    flags, _ = evaluated
    output = run('eval', *flags, *SHARPER[:1], fails=True)
    assert 'temperatures.encoder=1.0, now 0.5' in output


@pytest.mark.parametrize('model', ['tiny', 'bundled'])
def test_finetuning_from_our_folder(folders, tmp_path, model):
  run(
    'train',
    f'--gin_file={model}.gin',
    f'--gin_file={RUNS}/finetune.gin',
    f'--gin.MIXTURE_OR_TASK_NAME={TINY!r}',
    *VOCABULARIES.get(model, []),
    f'--gin.INITIAL_CHECKPOINT_PATH={str(folders[model])!r}',
    f'--gin.MODEL_DIR={str(tmp_path)!r}',
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 16}",
    '--gin.TRAIN_STEPS=7',
    '--gin.BATCH_SIZE=4',
    *FEW,
    '--gin.EVAL_STEPS=1',
    '--gin.EVAL_PERIOD=2',
    *SHARPER,
  )
  trained = checkpoints.load_checkpoint(tmp_path)
  assert trained.path.name == 'checkpoint_7'
  before = checkpoints.load_checkpoint(folders[model])
  change = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()), trained.params, before.params
  )
  # It went on from our weights: Adafactor moves them by thousandths.
  assert 0 < max(jax.tree.leaves(change)) < 0.05
  settings = json.loads((tmp_path / 'settings.json').read_text())
  assert settings['temperatures'] == TEMPERATURES.to_json()


SMALL = dict(emb_dim=16, num_heads=2, head_dim=8, mlp_dim=32, vocab_size=6144)


@pytest.mark.parametrize(
  ('model', 'flags', 'sizes'),
  [
    (
      't5_1_1_small',
      ['--gin.objectives.SpanCorruption.input_tokens=64'],
      dict(num_encoder_layers=1, num_decoder_layers=1),
    ),
    (
      'decoder_only_small',
      [
        '--gin.mixture.TextTask.objective=@objectives.LanguageModel()',
        '--gin.objectives.LanguageModel.target_tokens=64',
        '--gin.registration.register.decoder_only=True',
      ],
      dict(num_decoder_layers=1, logits_via_embedding=True),
    ),
  ],
  ids=['encoder-decoder', 'decoder-only'],
)
def test_pretraining_makes_a_model_that_we_load(tmp_path, model, flags, sizes):
  for split in ('train', 'dev'):
    text = f'The {split} is blue and the old man walked in the garden. ' * 100
    row = json.dumps({'text': text}) + '\n'
    (tmp_path / f'{split}.jsonl').write_text(row)
  knobs = SMALL | sizes
  run(
    'train',
    f'--gin_file=t5_align/gin_configs/t5x/models/{model}.gin',
    f'--gin_file={RUNS}/pretrain.gin',
    f'--gin.DATA={str(tmp_path)!r}',
    f'--gin.VOCABULARY_PATH={str(BUNDLED_MODEL / "spiece.model")!r}',
    f'--gin.MODEL_DIR={str(tmp_path / "model")!r}',
    f'--gin.registration.register.cache_dir={str(tmp_path / "tokens")!r}',
    '--gin.registration.register.num_validation_examples=4',
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 64}",
    *('--gin.TRAIN_STEPS=2', '--gin.BATCH_SIZE=2'),
    *('--gin.train.eval_steps=1', '--gin.train.eval_period=2'),
    *flags,
    *[f'--gin.network.T5Config.{k}={v}' for k, v in knobs.items()],
  )
  trained = model_lib.load_model(
    tmp_path / 'model' / 'checkpoint_2',
    config=network.T5Config(**knobs, mlp_activations=('gelu', 'linear')),
    vocabulary=BUNDLED_MODEL,
  )
  assert trained.checkpoint.decoder_only == (model == 'decoder_only_small')
  assert np.isfinite(trained.score(['The sky'], [' is blue.'])).all()


def test_the_bundled_recipe_trains(tmp_path):
  """Its mixture, sizes and lengths, for two steps of two examples."""
  for split in ('train', 'dev'):
    row = json.dumps({'text': f'The {split} sky is blue, they say. ' * 200})
    (tmp_path / f'{split}.jsonl').write_text(row + '\n')
  run(
    'train',
    '--gin_file=t5_align/gin_configs/experiments/train_bundled_t5x.gin',
    f'--gin.VOCABULARY_PATH={str(BUNDLED_MODEL / "spiece.model")!r}',
    f'--gin.DATA={str(tmp_path)!r}',
    f'--gin.MODEL_DIR={str(tmp_path / "model")!r}',
    f'--gin.registration.register.cache_dir={str(tmp_path / "tokens")!r}',
    '--gin.registration.register.num_validation_examples=8',
    *('--gin.TRAIN_STEPS=2', '--gin.BATCH_SIZE=2'),
    *('--gin.train.eval_steps=1', '--gin.train.eval_period=2'),
  )
  config = dataclasses.replace(
    model_lib.load_model('bundled').config, dtype='float32'
  )
  trained = model_lib.load_model(
    tmp_path / 'model' / 'checkpoint_2', config=config, vocabulary=BUNDLED_MODEL
  )
  assert np.isfinite(trained.score(['The sky'], [' is blue.'])).all()


def test_two_processes_find_what_one_finds(folders, tmp_path):
  def flags(name):
    return evaluate_flags('tiny', TINY, folders['tiny'], tmp_path / name)

  run('eval', *flags('one'))
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  processes = [
    start(
      'eval',
      flags('two'),
      JAX_COORDINATOR_ADDRESS=address,
      JAX_NUM_PROCESSES='2',
      JAX_PROCESS_ID=str(index),
    )
    for index in range(2)
  ]
  for process in processes:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-4000:]
  assert results_of(tmp_path / 'two', TINY) == results_of(
    tmp_path / 'one', TINY
  )


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (
      ["--gin.TASK_FEATURE_LENGHTS={'inputs': 8}"],
      "did you mean 'TASK_FEATURE_LENGTHS'?",
    ),
    (
      ['--gin.network.T5Config.num_encoder_layers=2'],
      'the file has 1 encoder layers, the config 2',
    ),
    (
      ["--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 16}"],
      'would cut samples of passkey_128: 6 of 6',
    ),
    (
      ["--gin.CHECKPOINT_PATH='{missing}'"],
      "did you mean 'checkpoint_5'?",
    ),
    (
      ['--gin.TEMPERATURES=@temperature.load()', *SHARPER[:1]],
      'Temperatures.encoder is bound to 0.5, but the model does not use',
    ),
  ],
  ids=['macro', 'layers', 'lengths', 'path', 'temperatures'],
)
def test_what_t5x_is_silent_about(folders, tmp_path, flags, message):
  missing = folders['tiny'].with_name('checkpoint_6')
  output = run(
    'eval',
    *evaluate_flags('tiny', TINY, folders['tiny'], tmp_path / 'out'),
    *[flag.replace('{missing}', str(missing)) for flag in flags],
    fails=True,
  )
  assert message in output
  assert not missing.exists()
  assert not (tmp_path / 'out').exists()


# Another value for each field of T5Config.
FIELDS = {
  'vocab_size': 512,
  'dtype': 'bfloat16',
  'emb_dim': 32,
  'num_heads': 4,
  'num_encoder_layers': 2,
  'num_decoder_layers': 3,
  'head_dim': 16,
  'mlp_dim': 64,
  'mlp_activations': ('gelu', 'linear'),
  'dropout_rate': 0.25,
  'logits_via_embedding': True,
  'float32_attention_logits': True,
  'scale_decoder_outputs': True,
  'relative_attention_num_buckets': 16,
  'relative_attention_max_distance': 64,
  'relative_bias_per_layer': True,
  'layer_norm_epsilon': 1e-5,
  'attention': 'reference',
}


def test_flags_reach_every_field_of_the_network(monkeypatch):
  names = {field.name for field in dataclasses.fields(network.T5Config)}
  assert set(FIELDS) == names - {'temperatures'}
  monkeypatch.syspath_prepend(str(MODELS))
  bindings = [f'network.T5Config.{k} = {v!r}' for k, v in FIELDS.items()]
  layers = ((0.5,) * 4, (0.7,) * 4)
  bindings.append(f'temperature.Temperatures.encoder = {layers!r}')
  gin.clear_config()
  gin.add_config_file_search_path(str(MODELS))
  try:
    gin.parse_config_files_and_bindings(['tiny.gin'], bindings)
    model = copy.deepcopy(gin.query_parameter('%MODEL'))
  finally:
    gin.clear_config()
  config = model.module.config
  assert {name: getattr(config, name) for name in FIELDS} == FIELDS
  assert config.temperatures.encoder == layers
