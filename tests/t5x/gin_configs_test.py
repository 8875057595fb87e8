"""Run files for T5X: each one parses, and a flag reaches each knob it lists.

Model files are in gin_models_test.py.
"""

import pathlib
import subprocess
import sys

import pytest

_REASON = 'T5X is not importable; tests/t5x/README.md says how to make it so.'
pytest.importorskip('t5x.utils', reason=_REASON)

pytestmark = pytest.mark.filterwarnings('ignore')

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = 't5_align/gin_configs/t5x'

# What must be set; then what the heads of the files say may be.
LENGTHS = 'TASK_FEATURE_LENGTHS={"inputs": 8, "targets": 8}'
NEEDED = {
  'eval': ['EVAL_OUTPUT_DIR="e"', 'CHECKPOINT_PATH="c"'],
  'infer': ['INFER_OUTPUT_DIR="i"', 'CHECKPOINT_PATH="c"', LENGTHS],
  'finetune': [
    'MODEL_DIR="m"',
    'INITIAL_CHECKPOINT_PATH="c"',
    LENGTHS,
    'TRAIN_STEPS=1',
  ],
  'pretrain': [
    'MODEL_DIR="m"',
    'DATA="d"',
    'VOCABULARY_PATH="v"',
    LENGTHS,
    'TRAIN_STEPS=1',
  ],
}
TASKS = [
  f'registration.mixture_or_task.{knob}'
  for knob in (
    'num_samples=6',
    'seed=1',
    'data="d"',
    'prompt_template="p"',
    'decoder_only=True',
  )
]
EVALUATION = [
  *TASKS,
  't5x_checks.checked_restore.truncation="right"',
  'utils.DatasetConfig.split="validation"',
  'utils.RestoreCheckpointConfig.mode="latest"',
  'utils.RestoreCheckpointConfig.dtype="bfloat16"',
]
TRAINING = [
  'DROPOUT_RATE=0.2',
  'utils.SaveCheckpointConfig.period=10',
  'utils.create_learning_rate_scheduler.base_learning_rate=0.1',
]
KNOBS = {
  'eval': [
    *EVALUATION,
    LENGTHS,
    'seqio.Evaluator.num_examples=3',
    'seqio.JSONLogger.write_n_results=2',
  ],
  'infer': [
    *EVALUATION,
    'infer.mode="score"',
    'infer.checkpoint_period=5',
    'infer.shard_id=1',
    'infer.num_shards=2',
  ],
  'finetune': [*TRAINING, *TASKS, 'EVAL_PERIOD=2', 'EVAL_STEPS=1'],
  'pretrain': [
    *TRAINING,
    'train.train_eval_dataset_cfg=None',
    'mixture.Mixture.tasks=(@mixture.TextTask(), @mixture.RetrievalTask())',
    'mixture.TextTask.objective=@objectives.PrefixLM()',
    'mixture.RetrievalTask.family="passkey"',
    'objectives.SpanCorruption.input_tokens=64',
    'objectives.PrefixLM.target_tokens=64',
    'objectives.LanguageModel.target_tokens=64',
    'registration.register.decoder_only=True',
    'registration.register.input_tokens=64',
    'registration.register.target_tokens=64',
    'registration.register.cache_dir="c"',
    'registration.register.seed=1',
    'utils.create_learning_rate_scheduler.warmup_steps=10',
  ],
}
EVERYWHERE = [
  'MIXTURE_OR_TASK_NAME="passkey_128"',
  'BATCH_SIZE=2',
  'NUM_PARTITIONS=2',
  'network.T5Config.dtype="float32"',
  'network.T5Config.attention="chunked"',
  'VOCABULARY_PATH="v"',
]
TEMPERATURES = {
  'sites': [
    'temperature.Temperatures.encoder=0.8',
    'temperature.Temperatures.decoder=[0.8, 0.9]',
    'temperature.Temperatures.cross=[[0.8, 0.9], [1.0, 1.1]]',
  ],
  'file': [
    'TEMPERATURES=@temperature.load()',
    'temperature.load.path="t.json"',
  ],
}
MODELS = {
  't5_1_1_small': ['models.EncoderDecoderModel.predict_batch_with_aux'],
  'decoder_only_base': ['models.DecoderOnlyModel.predict_batch_with_aux'],
}

# Gin's configuration is a process's own. As T5X does it: its function is one of
# __main__; flags come after the files, and import nothing.
_PARSE = """
import importlib.util, sys
import gin
from t5x.{binary} import *
gin.configurable({function}, module='__main__')
gin.add_config_file_search_path({root!r})
for bindings in {all_bindings!r}:
  gin.clear_config()
  sys.argv[1:] = ['--gin.' + binding for binding in bindings]
  gin.parse_config_files_and_bindings({files!r}, bindings)
"""


def parse(run, model, all_bindings):
  """Parse a run with each of several lists of bindings; return its errors."""
  functions = {'eval': 'evaluate', 'infer': 'infer'}
  code = _PARSE.format(
    binary=run if run in functions else 'train',
    function=functions.get(run, 'train'),
    root=str(ROOT),
    files=[f'{FOLDER}/models/{model}.gin', f'{FOLDER}/runs/{run}.gin'],
    all_bindings=all_bindings,
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
  )
  return done.stderr[-3000:] if done.returncode else ''


def test_every_run_is_here():
  folder = ROOT / 'gin_configs' / 't5x' / 'runs'
  assert set(KNOBS) == {path.stem for path in folder.glob('*.gin')}


@pytest.mark.slow
@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('run', sorted(KNOBS))
def test_run_parses_with_every_knob(run, model):
  """What the checks refuse of it is found, too: what nothing reads."""
  knobs = [*NEEDED[run], *EVERYWHERE, *KNOBS[run]]
  knobs += [f'{name}.num_decodes=2' for name in MODELS[model]]
  if 'decoder' in model:
    knobs.append('decoding.temperature_sample.temperature=0.5')
  every = [[*knobs, *chosen] for chosen in TEMPERATURES.values()]
  assert not parse(run, model, every)


@pytest.mark.slow
def test_a_file_of_temperatures_that_is_not_read_is_refused():
  knobs = [*NEEDED['eval'], *EVERYWHERE, 'temperature.load.path="t.json"']
  error = parse('eval', 't5_1_1_small', [knobs])
  assert 'temperature.load.path is bound' in error
