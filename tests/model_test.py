"""Model: three lines on the bundled model, its files, and bad folders."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from t5_align import load_model
from t5_align.alignment.calibration import CalibrationOptions
from t5_align.bundled import BUNDLED_MODEL
from t5_align.calibration_text import PlainText
from t5_align.checkpoints import save_t5x
from t5_align.tasks.generators import get_task
from t5_align.temperature import Law, Temperatures
from tests.random_parameters import random_parameters
from tests.tiny_model import save_tiny_model


@pytest.fixture(scope='module')
def model():
  return load_model('bundled', batch_size=4)


def passkey_samples(model, count=4):
  task = get_task('passkey_128')
  return list(task.samples(model.vocabulary.encode, limit=count, split='dev'))


def test_three_lines_answer_a_passkey(model):
  samples = passkey_samples(model)
  answers = model.generate([s.prompt for s in samples], max_new_tokens=8)
  for sample, answer in zip(samples, answers):
    assert answer == sample.answers[0]


def test_the_right_answer_is_likelier_than_a_wrong_one(model):
  prompts = [s.prompt for s in passkey_samples(model)]
  right = model.score(prompts, [s.target for s in passkey_samples(model)])
  wrong = model.score(prompts, ['12345'] * len(prompts))
  assert all(r > w + 5 for r, w in zip(right, wrong))


@pytest.mark.slow
def test_saved_folder_loads_with_its_temperatures(model, tmp_path):
  temperatures = Temperatures(encoder=(0.8, 0.7))
  sharper = model.with_temperatures(temperatures)
  sharper.save(tmp_path)
  again = load_model(tmp_path)
  assert again.temperatures == temperatures
  assert again.training_length == model.training_length == 256
  assert again.vocabulary.hash == model.vocabulary.hash
  tokens = model.tokenize([passkey_samples(model)[0].prompt])
  targets = np.array([[5, 6, 1]])
  logits = [
    m.logits(np.array(tokens), targets) for m in (sharper, again, model)
  ]
  np.testing.assert_array_equal(logits[0], logits[1])
  assert not jnp.allclose(logits[0], logits[2])


@pytest.mark.slow
def test_saved_folder_loads_in_hugging_face(model, tmp_path):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed'
  )
  model.save(tmp_path)
  theirs = transformers.T5ForConditionalGeneration.from_pretrained(
    tmp_path, dtype=torch.float32
  ).eval()
  tokens = np.array(model.tokenize([passkey_samples(model)[0].prompt]))
  targets = np.array([[5, 6, 7, 1]])
  with torch.no_grad():
    expected = theirs(
      input_ids=torch.from_numpy(tokens), labels=torch.from_numpy(targets)
    ).logits.numpy()
  # Float32 rounding in another order.
  largest = np.abs(expected).max()
  np.testing.assert_allclose(
    model.logits(tokens, targets), expected, atol=1e-5 * largest
  )


def test_folder_without_a_tokenizer_has_no_text(model, tmp_path):
  model.save(tmp_path)
  for name in ('spiece.model', 'tokenizer.json', 'tokenizer_config.json'):
    (tmp_path / name).unlink()
  silent = load_model(tmp_path)
  assert silent.vocabulary is None
  assert silent.encode(np.array([[5, 6, 1]])).shape == (1, 3, 256)
  with pytest.raises(ValueError, match='no tokenizer'):
    silent.generate(['Hello.'])


@pytest.mark.slow
def test_tokenizer_of_another_folder(model, tmp_path):
  save_t5x(tmp_path, model.params, step=1)
  assert load_model(tmp_path).vocabulary is None
  loaded = load_model(tmp_path, vocabulary=BUNDLED_MODEL)
  prompts = [s.prompt for s in passkey_samples(model)]
  assert loaded.generate(prompts) == model.generate(prompts)
  with pytest.raises(ValueError, match='checkpoint_1 has no tokenizer'):
    load_model(tmp_path, vocabulary=tmp_path / 'checkpoint_1')


def test_tokenizer_of_a_larger_model(model, tmp_path):
  model.save(tmp_path)
  config = json.loads((tmp_path / 'tokenizer_config.json').read_text())
  config['extra_ids'] = 30_000
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  with pytest.raises(ValueError, match='pieces, the model embeds 6144'):
    load_model(tmp_path)


def test_one_string_is_no_list_of_strings(model):
  with pytest.raises(TypeError, match='list of strings'):
    model.tokenize('What is the pass key?')


TEXTS = [
  f'The quick brown fox met {i * i} lazy dogs, and {i} of them saw it.'
  for i in range(40)
]


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
  """A model with random weights that was 'trained' at 32 bytes."""
  folder = tmp_path_factory.mktemp('tiny')
  save_tiny_model(folder)
  return load_model(folder, training_length=32)


@pytest.fixture(scope='module')
def aligned(tiny):
  return tiny.align(64, TEXTS, num_sequences=2)


@pytest.mark.slow
def test_align_then_generate(tiny, aligned):
  temperatures = aligned.temperatures
  assert temperatures == Temperatures(encoder=temperatures.encoder)
  assert 0 < temperatures.encoder < 1
  assert tiny.temperatures == Temperatures()
  record = aligned.calibration
  assert record['lengths'] == [64] and record['strategy'] == 'entropy'
  assert record['data']['source'].startswith('40 texts: ')
  assert aligned.generate([TEXTS[0]], max_new_tokens=3) != []
  tokens = np.array(tiny.tokenize([TEXTS[0]]))
  sharper, plain = (m.encode(tokens) for m in (aligned, tiny))
  assert not jnp.allclose(sharper, plain)


@pytest.mark.slow
def test_alignment_does_what_it_says(tiny, aligned):
  """The entropy at the target length is that of the training length."""
  text = PlainText(TEXTS, tiny.vocabulary)
  entropy = {}
  for name, model, length in (
    ('short', tiny, 32), ('long', tiny, 64), ('aligned', aligned, 64),
  ):  # fmt: skip
    statistics = model.statistics(text, length, num_sequences=8)
    mean = statistics.sites['encoder'].mean('entropy_nats')
    assert mean.shape == (1, 2, 1)
    entropy[name] = mean.mean()
  assert entropy['long'] > entropy['short'] + 0.3
  # Other windows of the text than those that were calibrated on.
  assert entropy['aligned'] == pytest.approx(entropy['short'], rel=0.05)


def test_saved_alignment_says_how_it_was_found(aligned, tmp_path):
  aligned.save(tmp_path)

  def refuse(constant):
    raise AssertionError(constant)

  path = tmp_path / 'temperatures.json'
  json.loads(path.read_text(), parse_constant=refuse)
  again = load_model(tmp_path)
  assert again.temperatures == aligned.temperatures
  assert again.calibration == aligned.calibration
  assert again.training_length == 32
  other = again.with_temperatures(Temperatures(encoder=0.5))
  assert other.calibration is None  # it is not about these


def test_align_passes_its_options(tiny, monkeypatch):
  calls = []

  def record(self, text, lengths, options, training_length):
    calls.append((text, lengths, options, training_length))
    raise KeyboardInterrupt

  monkeypatch.setattr(type(tiny), 'calibrate', record)
  text = PlainText(TEXTS, tiny.vocabulary)
  with pytest.raises(KeyboardInterrupt):
    tiny.align(
      64, text, 'maximum_probability', 16, 'head', ['encoder', 'cross'],
      averaging='log', clamp=True,
    )  # fmt: skip
  with pytest.raises(KeyboardInterrupt):
    tiny.align(64, sites='cross')
  assert calls[0] == (
    text,
    [64],
    CalibrationOptions(
      strategy='maximum_probability',
      granularity='head',
      sites=('encoder', 'cross'),
      averaging='log',
      clamp=True,
    ),
    16,
  )
  generated, _, options, training_length = calls[1]
  assert 'split dev' in generated.source
  assert options.sites == ('cross',) and training_length is None


def test_statistics_of_generated_text(tiny):
  statistics = tiny.statistics(None, 128, sites=['cross'], num_sequences=2)
  assert list(statistics.sites) == ['cross']
  entropy = statistics.sites['cross'].mean('entropy_nats')
  assert np.all((entropy > 0) & (entropy < np.log(128)))


@pytest.fixture(scope='module')
def decoder_only(tiny):
  checkpoint = dataclasses.replace(
    tiny.checkpoint,
    params=random_parameters(tiny.config, decoder_only=True),
    decoder_only=True,
  )
  return dataclasses.replace(tiny, checkpoint=checkpoint)


@pytest.mark.slow
def test_rows_of_a_decoder_only_model_are_told_apart_by_keys(decoder_only):
  training = decoder_only.statistics(TEXTS, 32, num_sequences=2)
  longer = decoder_only.statistics(TEXTS, 128, num_sequences=2)
  short, long = training.sites['decoder'], longer.sites['decoder']
  # 1 to 32 keys; then up to 45, 64, 91 and 128.
  np.testing.assert_allclose(short.keys, [16.5])
  np.testing.assert_allclose(long.keys, [16.5, 39, 55, 78, 110])
  entropy = long.mean('entropy_nats')
  assert np.all(np.diff(entropy) > 0)
  unknown = dataclasses.replace(decoder_only, training_length=None)
  (keys,) = unknown.statistics(TEXTS, 64, num_sequences=2).sites['decoder'].keys
  assert keys == 32.5


@pytest.mark.slow
def test_decoder_only_model_is_aligned_by_length(decoder_only):
  model = decoder_only
  aligned = model.align(64, TEXTS, num_sequences=2)
  law = aligned.temperatures.decoder
  assert isinstance(law, Law) and law.name == 'interpolated'
  assert law.coefficients[:2] == (32.0, 1.0) and law.coefficients[-1] < 1
  assert aligned.temperatures == Temperatures(decoder=law)
  assert len(aligned.generate([TEXTS[0]], max_new_tokens=2)) == 1
  with pytest.raises(ValueError, match="'cross' is no attention site"):
    model.align(64, TEXTS, sites=('cross',))


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'length': 32}, 'not longer than the training length, 32'),
    ({'length': 64, 'training_length': 64}, 'training length, 64'),
    ({'length': 64, 'training_length': 0}, 'training length is 0 tokens'),
    ({'length': 9999}, 'Give more text, or ask for a shorter length'),
    ({'length': 64, 'strategy': 'entropi'}, "did you mean 'entropy'"),
    ({'length': 64, 'granularity': 'heads'}, "did you mean 'head'"),
    ({'length': 64, 'sites': ('crss',)}, "did you mean 'cross'"),
    ({'length': 64, 'texts': []}, 'there is no text'),
  ],
)
def test_bad_alignment(tiny, arguments, message):
  with pytest.raises(ValueError, match=message):
    tiny.align(**{'texts': TEXTS} | arguments)


def test_align_needs_a_training_length(tiny):
  unknown = dataclasses.replace(tiny, training_length=None)
  with pytest.raises(ValueError, match='give training_length, in tokens'):
    unknown.align(64, TEXTS)


def test_measuring_needs_a_tokenizer_and_a_list(tiny):
  silent = dataclasses.replace(tiny, vocabulary=None)
  for model, texts, error in (
    (silent, TEXTS, ValueError),
    (silent, None, ValueError),
    (tiny, TEXTS[0], TypeError),
  ):
    message = 'list of strings' if error is TypeError else 'no tokenizer'
    with pytest.raises(error, match=message):
      model.statistics(texts, 32)
    with pytest.raises(error, match=message):
      model.align(64, texts)
    with pytest.raises(error, match=message):
      model.calibrate(texts, [64])
