"""`t5-align calibrate` from flags to files, and each fault in one line."""

import dataclasses
import json
import pathlib
import re
import shutil

import gin
import pytest

from t5_align import calibrate as calibrate_lib
from t5_align import cli, command, inference, load_model, report, temperature
from t5_align.alignment.calibration import CalibrationOptions
from t5_align.alignment.measure import AttentionMeter
from t5_align.tasks.generators import task as task_lib

RUN = 't5_align/gin_configs/runs/calibrate.gin'
SENTENCE = 'The quick brown fox met {} lazy dogs, and {} of them saw it.\n'
TEXT = ''.join(SENTENCE.format(i * i, i) for i in range(40))
# Fewer tokens than these make no attention to speak of.
SHORT = ('--training_length', 32, '--length', 64, '--num_sequences', 3)


@pytest.fixture(autouse=True)
def text(elsewhere):
  pathlib.Path('text.txt').write_text(TEXT)


@pytest.fixture(scope='module')
def calibrated(model_folder, tmp_path_factory):
  """The folder of one calibration of one temperature a layer."""
  folder = tmp_path_factory.mktemp('calibrated')
  text = folder / 'text.txt'
  text.write_text(TEXT)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(inference, 'use_compilation_cache', lambda: None)
    code = run(
      '--model', model_folder, '--data', text, *SHORT, '--granularity', 'layer',
      '--output_dir', folder / 'out',
    )  # fmt: skip
  assert code == 0
  return folder / 'out'


def run(*argv):
  return cli.main(['calibrate', *map(str, argv)])


def read(path):
  """Read a file of strict JSON: no NaN, no infinity."""

  def refuse(constant):
    raise AssertionError(f'{path} has {constant}')

  return json.loads(pathlib.Path(path).read_text(), parse_constant=refuse)


def one_line(capfd):
  out, err = capfd.readouterr()
  assert err.count('\n') == 1, err
  assert err.startswith('t5-align calibrate: ')
  assert out == ''
  return err


@pytest.mark.slow
def test_files_of_a_calibration(calibrated):
  assert {path.name for path in calibrated.iterdir()} == {
    'temperatures.json', 'statistics.json', 'config.gin', 'heads.png',
    'lengths.png', 'temperatures.png', 'distances.png', 'calibration.html',
  }  # fmt: skip
  document = read(calibrated / 'temperatures.json')
  record = document['calibration']
  assert document['version'] == 1
  assert record['training_length'] == 32 and record['lengths'] == [64]
  assert record['sites'] == ['encoder'] and record['granularity'] == 'layer'
  assert 'text.txt' in record['data']['source']
  assert record['data']['sequences'] == {'64': 3, '32': 6}
  (solution,) = record['solutions']
  assert solution['status'] == 'solved' and 0 < solution['temperature'] < 1
  assert solution['before'] > solution['target']
  assert solution['after'] == pytest.approx(solution['target'], rel=0.01)
  assert document['temperatures']['encoder'] == solution['temperature']
  statistics = read(calibrated / 'statistics.json')
  measured = {
    (m['site'], m['length'], m['alignment']) for m in statistics['measurements']
  }
  assert measured == {
    ('encoder', 32, 'none'),
    ('encoder', 64, 'none'),
    ('encoder', 64, 'entropy'),
  }
  rules = {rule['rule'] for rule in statistics['rules']}
  assert {'entropy', 'log_n', 'yarn', 'entropy_closed_form'} <= rules


@pytest.mark.slow
def test_three_prompts_of_two_kinds_have_no_interval(model_folder):
  """One of a kind tells nothing of how much that kind varies."""
  lengths = ('--training_length', 64, '--length', 128, '--num_sequences', 3)
  assert run('--model', model_folder, *lengths, '--output_dir', 'out') == 0
  record = read('out/temperatures.json')['calibration']
  (solution,) = record['solutions']
  assert solution['ci95'] is None
  assert solution['temperature'] > 0


@pytest.mark.slow
def test_model_folder_takes_the_file(calibrated, model_folder, tmp_path):
  folder = tmp_path / 'aligned'
  shutil.copytree(model_folder, folder)
  shutil.copy(calibrated / 'temperatures.json', folder)
  model = load_model(folder)
  stored = temperature.load(calibrated / 'temperatures.json')
  assert model.temperatures == stored != temperature.Temperatures()
  assert model.calibration['strategy'] == 'entropy'


@pytest.mark.slow
def test_gin_takes_the_file_as_t5x_would(calibrated):
  gin.clear_config()
  gin.parse_config(f"""
    from __gin__ import dynamic_registration
    from t5_align import network
    from t5_align import temperature

    TEMPERATURES = @temperature.load()
    temperature.load.path = '{calibrated / 'temperatures.json'}'
    network.T5Config:
      vocab_size = 384
      num_heads = 2
      num_encoder_layers = 1
      num_decoder_layers = 1
      temperatures = %TEMPERATURES
  """)
  gin.finalize()
  config = gin.get_configurable('network.T5Config')()
  stored = temperature.load(calibrated / 'temperatures.json')
  assert config.temperatures == stored


def test_report_shows_a_calibration_again(calibrated, tmp_path, capfd):
  folder = tmp_path / 'copy'
  folder.mkdir()
  for name in ('temperatures.json', 'statistics.json'):
    shutil.copy(calibrated / name, folder)
  assert cli.main(['report', str(folder)]) == 0
  assert 'solved' in capfd.readouterr().out
  assert (folder / 'calibration.html').exists()
  (folder / 'statistics.json').unlink()
  assert cli.main(['report', str(folder)]) == 2
  assert 'has no statistics.json' in capfd.readouterr().err


def test_written_gin_file_repeats_the_run(model_folder, monkeypatch):
  monkeypatch.setattr(report, 'show_calibration', lambda folder: None)
  arguments = ('--model', model_folder, '--data', 'text.txt', *SHORT)
  assert run(*arguments, '--output_dir', 'out', '--strategy',
             'maximum_probability', '--averaging', 'log') == 0  # fmt: skip
  before = read('out/temperatures.json')
  pathlib.Path('out/config.gin').rename('again.gin')
  shutil.rmtree('out')
  assert calibrate_lib.main(['--gin_file=again.gin']) == 0
  after = read('out/temperatures.json')
  for document in (before, after):
    del document['calibration']['date']
  assert after == before
  assert after['calibration']['strategy'] == 'maximum_probability'
  assert after['calibration']['averaging'] == 'log'


def bound(monkeypatch, main, *argv):
  """Return the arguments that a command line binds, without running it."""
  calls, bound_arguments = [], command.bound_arguments

  def record_and_stop(function):
    calls.append(bound_arguments(function))
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(command, 'bound_arguments', record_and_stop)
    assert main([str(a) for a in argv]) == 130
  return calls[0]


# What each knob may be set to that is not its default.
KNOBS = dict(
  strategy='maximum_probability',
  method='closed_form',
  granularity='head',
  sites=('encoder', 'cross'),
  form='by_length',
  averaging='log',
  selective=True,
  clamp=True,
  tolerance=0.01,
  num_sequences=3,
  num_training_sequences=5,
  rows_per_sequence=7,
  measure_between=False,
  tokens_per_batch=100,
  length_ratio=4,
)


def test_gin_reaches_every_option(monkeypatch):
  assert set(KNOBS) == {f.name for f in dataclasses.fields(CalibrationOptions)}
  prefix = '--gin.calibration.CalibrationOptions'
  arguments = bound(
    monkeypatch,
    calibrate_lib.main,
    f'--gin_file={RUN}',
    "--gin.CHECKPOINT_PATH='m'",
    *(f'{prefix}.{name}={value!r}' for name, value in KNOBS.items()),
  )
  assert arguments['options'] == CalibrationOptions(**KNOBS)


def test_both_styles_are_the_same_call(monkeypatch):
  short = bound(
    monkeypatch, lambda argv: run(*argv),
    '--model', 'm', '--data', 'a,b', '--data', 'c', '--length', '64,128',
    '--training_length', 32, '--strategy', 'maximum_probability',
    '--granularity', 'head', '--sites', 'encoder,cross', '--form', 'by_length',
    '--averaging', 'log', '--selective', '--clamp', '--tolerance', 0.01,
    '--num_sequences', 3, '--output_dir', 'o', '--seed', 4,
  )  # fmt: skip
  prefix = '--gin.calibrate_script.calibrate'
  options = {
    name: KNOBS[name]
    for name in (
      'strategy', 'granularity', 'sites', 'form', 'averaging', 'selective',
      'clamp', 'tolerance', 'num_sequences',
    )
  }  # fmt: skip
  long = bound(
    monkeypatch,
    calibrate_lib.main,
    f'--gin_file={RUN}',
    "--gin.CHECKPOINT_PATH='m'",
    "--gin.CALIBRATION_DIR='o'",
    f"{prefix}.data=['a,b', 'c']",
    f"{prefix}.length=['64,128']",
    f'{prefix}.training_length=32',
    f'{prefix}.seed=4',
    *(
      f'--gin.calibration.CalibrationOptions.{name}={value!r}'
      for name, value in options.items()
    ),
  )
  assert short == long
  assert short['options'].sites == ('encoder', 'cross')


def test_without_flags_it_is_the_bundled_model(monkeypatch):
  arguments = bound(monkeypatch, lambda argv: run(*argv))
  assert arguments['checkpoint_path'] == 'bundled'
  assert arguments['output_dir'] == 't5_align_calibration'
  assert arguments['split'] == 'dev'


def test_stale_temperatures_of_the_folder_do_not_matter(
  model_folder, monkeypatch
):
  """They say 'Calibrate with this model', so that must be possible."""
  shutil.copytree(model_folder, 'stale')
  temperature.save(
    'stale/temperatures.json',
    temperature.Temperatures(encoder=(1, 1, 1)),
    weights='f' * 64,
  )
  monkeypatch.setattr(AttentionMeter, 'measure', interrupt)
  assert run('--model', 'stale', '--data', 'text.txt', *SHORT) == 130


def interrupt(*_, **__):
  raise KeyboardInterrupt


@pytest.mark.parametrize('calls', [0, 2])
def test_interrupt_leaves_what_was_there(
  model_folder, monkeypatch, capfd, calls
):
  out = pathlib.Path('out')
  out.mkdir()
  (out / 'temperatures.json').write_text('earlier')
  measure, done = AttentionMeter.measure, []

  def measure_some(*args, **kwargs):
    done.append(1)
    return (interrupt if len(done) > calls else measure)(*args, **kwargs)

  monkeypatch.setattr(AttentionMeter, 'measure', measure_some)
  arguments = ('--model', model_folder, '--data', 'text.txt', *SHORT)
  assert run(*arguments, '--output_dir', 'out') == 130
  assert 'interrupted; the same command starts over.' in one_line(capfd)
  assert [path.name for path in out.iterdir()] == ['temperatures.json']
  assert (out / 'temperatures.json').read_text() == 'earlier'


OPTION = '--gin.calibration.CalibrationOptions'


@pytest.mark.parametrize(
  'arguments, message',
  [
    (('--length', 16), 'The target length, 16 tokens, is not longer'),
    (('--length', 32), 'The target length, 32 tokens, is not longer'),
    (('--length', 0), 'The target length, 0 tokens, is not longer'),
    (('--length', 99_999), '2464 tokens; wanted 200059'),
    (('--length', 'abc'), "length is 'abc'; wanted a number of tokens"),
    (('--length', '64.5'), "length is '64.5'; wanted a number of tokens"),
    (('--length', ''), 'No target length was given'),
    (('--length', 64, '--length', 96), 'length is 64, 96, but a constant'),
    (('--length', '64,96'), '(--form by_length)'),
    (('--data', 'short.txt'), 'wanted 189 (EOS not counted), for 2 sequences'),
    (('--training_length', 0), 'training_length is 0; wanted 2 tokens or more'),
    (('--training_length', 'x'), 'invalid int value'),
    (('--strategy', 'entropi'), "Unknown strategy 'entropi'; did you mean"),
    (('--granularity', 'layr'), "did you mean 'layer'"),
    (('--method', 'closed'), "did you mean 'closed_form'"),
    (('--form', 'bylength'), "did you mean 'by_length'"),
    (('--averaging', 'lg'), "did you mean 'log'"),
    (('--averaging', 'log'), 'entropy is a logarithm already'),
    (('--sites', 'encodr'), "did you mean 'encoder'"),
    (('--sites', ''), 'sites is empty; wanted some of encoder, decoder, cross'),
    (('--num_sequences', 0), 'num_sequences is 0; wanted a number from 1 up'),
    (('--tolerance', 2), 'tolerance is 2.0; wanted a share between 0 and 1'),
    (('--tolerance', 'nan'), '--tolerance is nan; wanted a finite number.'),
    (('--tolerance', 'inf'), '--tolerance is inf; wanted a finite number.'),
    ((f'{OPTION}.num_training_sequences=0',), 'num_training_sequences is 0'),
    ((f'{OPTION}.granularty="layer"',), 'Did you mean granularity?'),
    (('--gin.CALIBRATION_DR="x"',), 'Did you mean CALIBRATION_DIR?'),
    (('--output_dir', 'text.txt/x'), 'text.txt/x is not writable'),
    (('--attention', 'magic'), "'magic'"),
    (('--nonsense',), '--nonsense'),
  ],
)
def test_bad_usage_is_one_line_and_2(model_folder, capfd, arguments, message):
  pathlib.Path('short.txt').write_text('too short')
  defaults = ('--model', model_folder, '--training_length', 32)
  for flag, value in (('--data', 'text.txt'), ('--length', 64)):
    if flag not in arguments:
      defaults += (flag, value)
  code = run(*defaults, *arguments)
  assert message in one_line(capfd)
  assert code == 2
  assert not pathlib.Path('t5_align_calibration').exists()


def test_unknown_training_length_says_so(model_folder, capfd):
  assert run('--model', model_folder, '--data', 'text.txt') == 2
  assert 'was trained at is not known: give training_length' in one_line(capfd)


@pytest.mark.parametrize(
  'data, message',
  [
    ('empty.txt', 'empty.txt: an empty file'),
    ('binary.txt', 'binary.txt: byte 0 is not UTF-8'),
    ('text.tx', "text.tx: no such file or folder.*mean 'text.txt'"),
    ('*.md', r"No file matches '\*.md'"),
    ('folder', 'folder'),
  ],
)
def test_unreadable_data_is_one_line_and_3(model_folder, capfd, data, message):
  pathlib.Path('empty.txt').write_text('')
  pathlib.Path('binary.txt').write_bytes(b'\xff\xfe\x00')
  pathlib.Path('folder').mkdir()
  assert run('--model', model_folder, '--data', data, *SHORT) == 3
  assert re.search(message, one_line(capfd))
  assert not pathlib.Path('t5_align_calibration').exists()


def test_unreadable_model_is_one_line_and_3(capfd):
  assert run('--model', 'nowhere', '--data', 'text.txt', *SHORT) == 3
  assert 'nowhere: no such folder here' in one_line(capfd)


@pytest.mark.slow
def test_the_bundled_model_alone(monkeypatch):
  """No argument: generated prompts, never of the split that is evaluated."""
  splits = set()
  samples = task_lib.TaskDefinition.samples

  def watch(self, *args, split='test', **kwargs):
    splits.add(split)
    return samples(self, *args, split=split, **kwargs)

  monkeypatch.setattr(task_lib.TaskDefinition, 'samples', watch)
  assert run() == 0
  out = pathlib.Path('t5_align_calibration')
  document = read(out / 'temperatures.json')
  record = document['calibration']
  assert splits == {'dev'}
  assert record['training_length'] == 256 and record['lengths'] == [2048]
  (solution,) = record['solutions']
  assert solution['status'] == 'solved'
  assert solution['after'] == pytest.approx(solution['target'], rel=0.01)
  assert solution['before'] > 1.2 * solution['target']
  # What the file that it runs promises: about 0.73.
  assert document['temperatures']['encoder'] == pytest.approx(0.73, abs=0.02)
  assert read(out / 'statistics.json')['measurements']
  assert (out / 'calibration.html').exists() and (out / 'config.gin').exists()
