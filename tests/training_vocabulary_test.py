"""The vocabulary of a run: given, kept, or trained on its text."""

import json
import shutil

import pytest

from t5_align import training_vocabulary
from t5_align.bundled import BUNDLED_MODEL
from t5_align.tasks.pretraining import Mixture, RetrievalTask, TextTask
from t5_align.training_vocabulary import VocabularyTraining
from t5_align.vocabulary import load_vocabulary

CODE = 'def area(width, height):\n    return width * height\n\n\n'
MIXTURE = Mixture((TextTask(), RetrievalTask('passkey')))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A folder with a vocabulary of source code and of prompts."""
  folder = tmp_path_factory.mktemp('model')
  rows = json.dumps({'text': CODE * 20}) + '\n'
  (folder / 'code.jsonl').write_text(rows * 10)
  options = VocabularyTraining(20, 10_000, keep_whitespace=True)
  files = [str(folder / 'code.jsonl')]
  training_vocabulary.put(folder, None, options, 640, MIXTURE, files)
  return folder


def put(folder, given, vocab_size=6144):
  training_vocabulary.put(
    folder, given, VocabularyTraining(), vocab_size, Mixture(), []
  )
  return load_vocabulary(folder)


def test_is_trained_on_text_and_prompts_and_keeps_white_space(trained):
  vocabulary = load_vocabulary(trained)
  assert vocabulary.decode(vocabulary.encode(CODE)) == CODE
  for word in ('return ', 'pass key'):
    assert len(vocabulary.encode(word)) < len(word)
  assert (trained / 'tokenizer.json').exists()


def test_what_is_there_stays(trained):
  before = load_vocabulary(trained).hash
  assert put(trained, None).hash == before


def test_a_given_one_is_copied(tmp_path, trained):
  bundled = load_vocabulary(BUNDLED_MODEL)
  assert put(tmp_path, 'bundled').hash == bundled.hash
  assert put(tmp_path, BUNDLED_MODEL / 'spiece.model').hash == bundled.hash
  with pytest.raises(ValueError, match='has another vocabulary than'):
    put(tmp_path, trained)


def test_another_run_is_refused(tmp_path, trained):
  shutil.copytree(trained, tmp_path / 'model')
  with pytest.raises(ValueError, match='choose a new model_dir'):
    put(tmp_path / 'model', 'bundled')


def test_larger_than_the_network(tmp_path):
  with pytest.raises(ValueError, match='has 6144 pieces, the network has'):
    put(tmp_path, 'bundled', vocab_size=1000)
  assert not list(tmp_path.iterdir())


def test_nothing_is_there(tmp_path):
  with pytest.raises(FileNotFoundError, match='No vocabulary at'):
    put(tmp_path, tmp_path / 'missing.model')
