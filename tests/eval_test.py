"""`t5-align eval` from flags to files, and each fault in one line."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from t5_align import answering, cli, temperature
from t5_align import eval as eval_lib
from t5_align import model as model_lib
from t5_align.tasks import generators

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUN = 't5_align/gin_configs/runs/eval.gin'
pytestmark = pytest.mark.usefixtures('elsewhere')


def run(*argv):
  return cli.main(['eval', *map(str, argv)])


def read(output_dir):
  contents = json.loads((pathlib.Path(output_dir) / 'results.json').read_text())
  return contents['header'], contents['rows']


@pytest.mark.slow
def test_short_flags(model_folder, capfd):
  code = run(
    '--model', model_folder, '--task', 'passkey_160,line_retrieval_3',
    '--alignment', 'none', '--alignment', 0.8, '--limit', 3, '--seed', 5,
    '--output_dir', 'out', '--dtype', 'float32', '--attention', 'reference',
    '--batch_size', 2,
  )  # fmt: skip
  assert code == 0
  header, rows = read('out')
  assert [(row['task'], row['alignment'], row['n']) for row in rows] == [
    ('passkey_160', 'none', 3),
    ('passkey_160', 'temperature=0.8', 3),
    ('line_retrieval_3', 'none', 3),
    ('line_retrieval_3', 'temperature=0.8', 3),
  ]
  assert header['seed'] == 5
  assert header['attention'] == 'reference'
  assert header['settings']['batch_size'] == 2
  assert {path.name for path in pathlib.Path('out').iterdir()} == {
    'config.gin', 'results.json', 'samples', 'scores.png', 'depth_maps.png',
    'report.html',
  }  # fmt: skip
  out, err = capfd.readouterr()
  assert 'passkey (passkey_match, n = 3)' in out
  assert 'out/report.html' in out
  assert '12/12 samples' in err


def test_both_styles_are_the_same_call(monkeypatch):
  calls = []
  bound_arguments = eval_lib.command.bound_arguments

  def record_and_stop(function):
    calls.append(bound_arguments(function))
    raise KeyboardInterrupt

  monkeypatch.setattr(eval_lib.command, 'bound_arguments', record_and_stop)
  short = (
    '--model', 'm', '--task', 'passkey_64', '--alignment', '0.8',
    '--output_dir', 'o', '--batch_size', '3', '--max_input_tokens', '99',
    '--limit', '7', '--truncation', 'left', '--granularity', 'head',
    '--sites', 'encoder,cross',
  )  # fmt: skip
  gin_style = (
    f'--gin_file={RUN}', "--gin.CHECKPOINT_PATH='m'",
    "--gin.MIXTURE_OR_TASK_NAME=['passkey_64']", "--gin.TEMPERATURES=['0.8']",
    "--gin.EVAL_OUTPUT_DIR='o'", '--gin.BATCH_SIZE=3',
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 99}",
    '--gin.eval_script.evaluate.limit=7',
    "--gin.eval_script.evaluate.truncation='left'",
    "--gin.calibration.CalibrationOptions.granularity='head'",
    "--gin.calibration.CalibrationOptions.sites=('encoder', 'cross')",
  )  # fmt: skip
  assert run(*short) == 130
  assert eval_lib.main(gin_style) == 130
  assert calls[0] == calls[1]
  assert calls[0]['batch_size'] == 3
  assert calls[0]['task_feature_lengths'] == {'inputs': 99}
  assert calls[0]['calibration'].sites == ('encoder', 'cross')


@pytest.mark.slow
def test_written_gin_file_repeats_the_run(model_folder):
  arguments = ('--task', 'passkey_160', '--limit', 2, '--output_dir', 'out')
  assert run('--model', model_folder, *arguments) == 0
  before = read('out')
  shutil.copy('out/config.gin', 'again.gin')
  shutil.rmtree('out')
  assert eval_lib.main(['--gin_file=again.gin']) == 0
  after = read('out')
  assert after[1] == before[1]
  assert after[0]['config_hash'] == before[0]['config_hash']


def test_own_temperatures_are_evaluated_too(model_folder, tmp_path):
  folder = tmp_path / 'sharp'
  shutil.copytree(model_folder, folder)
  temperature.save(
    folder / 'temperatures.json', temperature.Temperatures(encoder=(0.7,))
  )
  assert run('--model', folder, '--task', 'passkey_160', '--limit', 2) == 0
  header, rows = read('t5_align_results')
  assert [row['alignment'].partition('@')[0] for row in rows] == [
    'none',
    'temperatures.json',
  ]
  assert header['temperatures'][rows[1]['alignment']]['encoder'] == [0.7]


def test_interrupt_and_failure_codes(model_folder, monkeypatch, capfd):
  arguments = ('--model', model_folder, '--task', 'passkey_160', '--limit', 2)
  ask = answering.ask

  def interrupt(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(answering, 'ask', interrupt)
  assert run(*arguments) == 130
  assert 'interrupted' in capfd.readouterr().err

  def fail(*args):
    answers = ask(*args)
    outputs = [output._replace(finite=False) for output in answers.outputs]
    return answers._replace(outputs=outputs)

  monkeypatch.setattr(answering, 'ask', fail)
  assert run(*arguments) == 1
  assert 'n = 2, 2 failed' in capfd.readouterr().out


def one_line(capfd):
  out, err = capfd.readouterr()
  assert err.count('\n') == 1, err
  assert err.startswith('t5-align eval: ')
  assert out == ''
  return err


TASK = ('--task', 'passkey_160')


@pytest.mark.parametrize(
  'arguments, message',
  [
    (('--task', 'paskey_512'), "Did you mean 'passkey_512'"),
    (('--task', 'nothing_*'), "matches 'nothing_*'"),
    ((), 'MIXTURE_OR_TASK_NAME is required: set --task'),
    ((*TASK, '--gin.eval_script.evaluate.limt=3'), 'Did you mean limit?'),
    ((*TASK, '--gin.BATCHSIZE=3'), 'macro BATCHSIZE. Did you mean BATCH_SIZE?'),
    ((*TASK, '--gin.BATCH_SIZE=x'), 'strings need quotes'),
    ((*TASK, '--gin_file=nowhere.gin'), 'nowhere.gin'),
    ((*TASK, '--alignment', '0'), 'temperature 0.0 can not divide'),
    ((*TASK, '--alignment', '-1'), 'temperature -1.0 can not divide'),
    ((*TASK, '--alignment', 'nan'), 'temperature nan can not divide'),
    ((*TASK, '--alignment', 'entropy'), 'trained at'),
    ((*TASK, '--alignment', 'lost.json'), 'lost.json'),
    ((*TASK, '--alignment', 'entropi'), "did you mean 'entropy'"),
    ((*TASK, '--sites', 'encodr'), "did you mean 'encoder'"),
    ((*TASK, '--granularity', 'heads'), "did you mean 'head'"),
    ((*TASK, '--training_length', '0'), 'training_length is 0; wanted 2'),
    ((*TASK, '--max_input_tokens', '50'), 'over the limit max_input_tokens=50'),
    ((*TASK, '--truncation', 'left'), 'set max_input_tokens'),
    ((*TASK, '--truncation', 'up'), 'invalid choice'),
    ((*TASK, '--output_dir', 'file/x'), 'file/x is not writable'),
    ((*TASK, '--limit', '0'), 'limit is 0'),
    ((*TASK, '--limit', 'ten'), 'invalid int value'),
    ((*TASK, '--nonsense'), '--nonsense'),
    ((*TASK, '--attention', 'magic'), 'magic'),
    ((*TASK, '--template', 'nothing'), "'nothing' is neither"),
    (
      (*TASK, '--gin.TASK_FEATURE_LENGTHS={"input": 5}'),
      'wanted inputs, targets',
    ),
    (('--task', 'passkey_20'), '20 tokens are too few'),
    ((*TASK, '--data', 'file'), 'is always generated; leave data out'),
    ((*TASK, "--gin.MODEL='t5-smal'"), "did you mean 't5-small'"),
  ],
)
def test_bad_usage_is_one_line_and_2(model_folder, capfd, arguments, message):
  pathlib.Path('file').write_text('')
  code = run('--model', model_folder, '--limit', 2, *arguments)
  assert message in one_line(capfd)
  assert code == 2


def truncate(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
  'damage, message',
  [
    (shutil.rmtree, 'broken'),
    (lambda folder: (folder / 'model.safetensors').unlink(), 'broken'),
    (truncate, 'model.safetensors'),
    (lambda folder: (folder / 'config.json').write_text('{'), 'config.json'),
    (
      lambda folder: (folder / 'tokenizer_config.json').unlink(),
      'has no tokenizer',
    ),
    (
      lambda folder: (folder / 'spiece.model').write_bytes(b'junk'),
      'spiece.model',
    ),
  ],
)
def test_unreadable_model_is_one_line_and_3(
  model_folder, capfd, damage, message
):
  shutil.copytree(model_folder, 'broken')
  damage(pathlib.Path('broken'))
  assert run('--model', 'broken', *TASK) == 3
  assert message in one_line(capfd)


@pytest.mark.parametrize(
  'content, message',
  [
    ('', 'data.jsonl'),
    ('nonsense\n', 'data.jsonl:1'),
    (None, 'data.jsonl'),
  ],
)
def test_unreadable_data_is_one_line_and_3(
  model_folder, capfd, content, message
):
  if content is not None:
    pathlib.Path('data.jsonl').write_text(content)
  code = run(
    '--model', model_folder, '--task', 'line_retrieval_200',
    '--data', 'data.jsonl',
  )  # fmt: skip
  assert message in one_line(capfd)
  assert code == 3


def test_debug_shows_the_traceback(model_folder, capfd):
  assert run('--model', model_folder, '--task', 'paskey_512', '--debug') == 2
  assert 'Traceback' in capfd.readouterr().err


def test_another_configuration_is_refused(model_folder, capfd):
  arguments = ('--model', model_folder, *TASK, '--limit', 2)
  assert run(*arguments) == 0
  capfd.readouterr()
  assert run(*arguments, '--seed', 1) == 2
  assert 'another settings.seed' in one_line(capfd)


@pytest.mark.slow
def test_alignments_that_measure_the_model(model_folder, monkeypatch, capfd):
  """Found on the way, compared with none, and found once."""
  names = ('none', 'entropy', 'entropy_closed_form', 'yarn', 'ssmax', 'oracle')
  arguments = (
    '--model', model_folder, *TASK, '--limit', 2, '--training_length', 128,
    '--gin.calibration.CalibrationOptions.num_sequences=2',
    "--gin.TASK_FEATURE_LENGTHS={'targets': 2}", '--output_dir', 'out',
    '--alignment', ','.join(names),
  )  # fmt: skip
  assert run(*arguments) == 0
  header, rows = read('out')
  assert [row['alignment'] for row in rows] == list(names)
  assert [row['difference'] is None for row in rows] == [True] + [False] * 5
  assert header['temperatures']['entropy']['encoder']['law'] == 'interpolated'
  kept = pathlib.Path('out/alignments')
  assert {path.stem for path in kept.iterdir()} == {
    'entropy', 'entropy_closed_form', 'oracle',
  }  # fmt: skip
  record = temperature.load_calibrated(kept / 'entropy.json')[1]
  assert 'split dev' in record['data']['source']
  assert "calibrating 'entropy' at 151 tokens on" in capfd.readouterr().err

  def refuse(*_, **__):
    raise AssertionError('this was calibrated before')

  monkeypatch.setattr(model_lib.Model, 'calibrate', refuse)
  assert run(*arguments) == 0
  assert read('out')[1] == rows
  capfd.readouterr()
  assert run(*arguments, '--granularity', 'layer') == 2
  assert "'entropy' found with another granularity" in one_line(capfd)
  # What is kept is a temperatures.json like any other.
  other = ('--alignment', 'none', '--alignment', kept / 'entropy.json')
  rest = (*arguments[:-4], '--output_dir', 'again', *other)
  assert run(*rest) == 0
  named = read('again')[1][1]['alignment']
  assert named.startswith('entropy.json@')
  temperatures = read('again')[0]['temperatures'][named]
  assert temperatures == header['temperatures']['entropy']


@pytest.mark.parametrize(
  'content, message',
  [
    ('{"version": 1, "temperatures": {"enc', 'no temperatures here'),
    ('{"version": 2, "temperatures": {}}', 'version 2, wanted 1'),
    ('{"version": 1, "temperatures": {"encoder": [1, 1]}}', 'model has 1'),
    (
      '{"version": 1, "temperatures": {}, "calibration": {"weights": "00"}}',
      'calibrated on other weights',
    ),
  ],
)
def test_temperatures_of_another_model(model_folder, capfd, content, message):
  pathlib.Path('t.json').write_text(content)
  arguments = (*TASK, '--limit', 2)
  assert run('--model', model_folder, *arguments, '--alignment', 't.json') == 2
  assert message in one_line(capfd)
  shutil.copytree(model_folder, 'aligned')
  shutil.copy('t.json', 'aligned/temperatures.json')
  assert run('--model', 'aligned', *arguments) == 3
  assert message in one_line(capfd)


def test_experiment_file_parses():
  """What `t5-align eval` alone runs: the bundled model, 1 to 16 times."""
  eval_lib.command.parse_gin([RUN, eval_lib._BUNDLED], [])
  arguments = eval_lib.command.bound_arguments(eval_lib.evaluate)
  assert arguments['checkpoint_path'] == 'bundled'
  assert arguments['calibration'].length_ratio == 4
  assert arguments['output_dir'] == 't5_align_results'
  tasks = generators.select_tasks(arguments['tasks'])
  by_family = {}
  for task in tasks:
    by_family.setdefault(task.family, []).append(task.size)
  assert set(by_family) == {'passkey', 'perplexity_files'}
  for sizes in by_family.values():
    assert [size / 256 for size in sizes] == [1, 4, 16]
  assert 'none' in arguments['alignments'] and len(arguments['alignments']) > 1


def test_experiment_of_sites_is_the_same_with_cross_attention():
  folder = 't5_align/gin_configs/experiments'
  eval_lib.command.parse_gin([f'{folder}/bundled_sites.gin'], [])
  arguments = eval_lib.command.bound_arguments(eval_lib.evaluate)
  eval_lib.command.parse_gin([f'{folder}/bundled.gin'], [])
  others = eval_lib.command.bound_arguments(eval_lib.evaluate)
  assert arguments['calibration'].sites == ('encoder', 'cross')
  assert arguments.pop('calibration').length_ratio == 4
  differing = {k for k in arguments if arguments[k] != others[k]}
  assert differing == {'tasks'}
  sizes = {task.size for task in generators.select_tasks(arguments['tasks'])}
  assert sizes == {1024, 4096}


def test_without_a_model_the_bundled_one_answers():
  arguments = ('--task', 'passkey_128', '--alignment', 'none', '--limit', 10)
  assert run(*arguments) == 0
  header, rows = read('t5_align_results')
  assert header['training_length'] == 256
  assert len(rows) == 1 and rows[0]['value'] >= 0.9


@pytest.mark.slow
def test_a_process_elsewhere_without_tensorflow(model_folder, tmp_path):
  """Modules run from any directory, and never import TensorFlow."""
  code = (
    'import sys; from t5_align import eval as e;'
    f' code = e.main({["--model", str(model_folder), *TASK, "--limit=1"]!r});'
    " print(*(m for m in ('tensorflow', 'seqio', 't5x') if m in sys.modules));"
    ' sys.exit(code)'
  )
  environment = os.environ | {
    'PYTHONPATH': str(ROOT),
    'XDG_CACHE_HOME': str(tmp_path / 'cache'),
  }

  def python(*arguments):
    return subprocess.run(
      [sys.executable, *arguments],
      cwd=tmp_path,
      env=environment,
      capture_output=True,
      text=True,
      timeout=200,
    )

  done = python('-c', code)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == ''
  done = python('-m', 't5_align.eval', f'--gin_file={RUN}')
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert 'MIXTURE_OR_TASK_NAME is required: set --task' in done.stderr
