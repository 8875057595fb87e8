"""The stream of token ids: what is in it, when it is made again."""

import gzip
import json
import pickle

import numpy as np
import pytest

from t5_align.bundled import BUNDLED_MODEL
from t5_align.tasks.pretraining import token_stream
from t5_align.vocabulary import load_vocabulary

TEXTS = ['The pass key is 31.', 'What is in line 7?', 'The sky is blue.']


def write_rows(path, texts=TEXTS):
  rows = ''.join(json.dumps({'text': text}) + '\n' for text in texts)
  if path.suffix == '.gz':
    path.write_bytes(gzip.compress(rows.encode(), mtime=0))
  else:
    path.write_text(rows)
  return str(path)


def make(files, folder, **options):
  return token_stream.tokenize(files, BUNDLED_MODEL, folder, **options)


def wanted_ids(texts=TEXTS):
  encode = load_vocabulary(BUNDLED_MODEL).encode
  return [i for text in texts for i in [*encode(text), 1]]


class TestTokenize:
  @pytest.mark.parametrize('name', ['a.jsonl', 'a.jsonl.gz'])
  def test_documents_end_in_eos(self, tmp_path, name):
    stream = make([write_rows(tmp_path / name)], tmp_path / 'run')
    assert stream.ids.tolist() == wanted_ids()
    assert stream.ids.dtype == np.uint16

  def test_is_read_from_the_disk_and_small_to_pickle(self, tmp_path):
    rows = write_rows(tmp_path / 'a.jsonl', TEXTS * 100)
    stream = make([rows], tmp_path / 'run')
    assert isinstance(stream.ids, np.memmap)
    content = pickle.dumps(stream)
    assert len(content) < 1000
    assert len(pickle.loads(content)) == len(stream) == len(wanted_ids()) * 100

  def test_processes_change_nothing(self, tmp_path, monkeypatch):
    monkeypatch.setattr(token_stream, '_CHUNK', 20)
    rows = write_rows(tmp_path / 'a.jsonl')
    alone = make([rows], tmp_path / 'alone')
    with_workers = make([rows], tmp_path / 'workers', workers=1)
    assert with_workers.ids.tolist() == alone.ids.tolist() == wanted_ids()

  def test_is_made_once_for_a_text(self, tmp_path, monkeypatch):
    rows = write_rows(tmp_path / 'a.jsonl')
    first = make([rows], tmp_path / 'run')
    other = make(
      [write_rows(tmp_path / 'b.jsonl', TEXTS[:2])], tmp_path / 'run'
    )
    assert other.path != first.path
    monkeypatch.setattr(token_stream, '_encode', None)
    assert make([rows], tmp_path / 'run') == first


class TestWindows:
  def test_are_anywhere_and_each_as_likely(self, tmp_path):
    stream = make([write_rows(tmp_path / 'a.jsonl')], tmp_path)
    length = len(stream) - 3
    rng = np.random.default_rng(0)
    windows = [tuple(stream.draw(rng, length)) for _ in range(400)]
    every = {tuple(stream.window(start, length)) for start in range(4)}
    assert set(windows) == every
    assert min(windows.count(window) for window in every) > 70

  def test_too_little_text(self, tmp_path):
    stream = make([write_rows(tmp_path / 'a.jsonl')], tmp_path)
    with pytest.raises(ValueError, match='a window 1000; give more text'):
      stream.draw(np.random.default_rng(0), 1000)


class TestTrainingFiles:
  def test_other_splits_are_held_out(self, tmp_path):
    train = write_rows(tmp_path / 'train.jsonl.gz')
    write_rows(tmp_path / 'test.jsonl')
    assert token_stream.training_files(tmp_path) == [train]
    assert token_stream.training_files([str(tmp_path)]) == [train]

  def test_a_folder_without_splits_is_read_whole(self, tmp_path):
    files = [write_rows(tmp_path / f'{name}.jsonl') for name in 'ab']
    assert token_stream.training_files(tmp_path) == files
