"""Model: three lines on the bundled model, its files, and bad folders."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from t5_align import load_model
from t5_align.bundled import BUNDLED_MODEL
from t5_align.checkpoints import save_t5x
from t5_align.tasks.generators import get_task
from t5_align.temperature import Temperatures


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


def test_saved_folder_loads_with_its_temperatures(model, tmp_path):
  temperatures = Temperatures(encoder=(0.8, 0.7))
  sharper = model.with_temperatures(temperatures)
  sharper.save(tmp_path)
  again = load_model(tmp_path)
  assert again.temperatures == temperatures
  assert again.training_length == model.training_length == 128
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
  (tmp_path / 'spiece.model').unlink()
  (tmp_path / 'tokenizer_config.json').unlink()
  silent = load_model(tmp_path)
  assert silent.vocabulary is None
  assert silent.encode(np.array([[5, 6, 1]])).shape == (1, 3, 128)
  with pytest.raises(ValueError, match='no tokenizer'):
    silent.generate(['Hello.'])


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
  with pytest.raises(ValueError, match='pieces, the model embeds 1536'):
    load_model(tmp_path)


def test_one_string_is_no_list_of_strings(model):
  with pytest.raises(TypeError, match='list of strings'):
    model.tokenize('What is the pass key?')
