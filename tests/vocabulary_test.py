"""Ids of every kind of vocabulary, on tiny ones made here."""

import json
import os

from etils import epath
import numpy as np
import pytest
from sentencepiece import sentencepiece_model_pb2

from t5_align import vocabulary as vocabulary_lib
from t5_align.tasks.generators import filler

EXTRA_IDS = 10


@pytest.fixture(scope='module')
def texts():
  sentences = filler.sentences(np.random.default_rng(0))
  return [f'{next(sentences)} It has 48213 ﬁne words.' for _ in range(600)]


@pytest.fixture(scope='module')
def model_proto(texts):
  return vocabulary_lib.train_sentencepiece(
    texts, 400 + EXTRA_IDS, extra_ids=EXTRA_IDS, byte_fallback=False
  )


@pytest.fixture(scope='module')
def vocabulary(model_proto):
  return vocabulary_lib.SentencePieceVocabulary(model_proto)


def test_special_ids_and_sentinels(vocabulary):
  size = vocabulary.vocab_size
  assert vocabulary.extra_ids == EXTRA_IDS
  assert vocabulary.encode('<extra_id_0>') == [size - 1]
  assert vocabulary.encode('<extra_id_9>') == [size - EXTRA_IDS]
  assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)


def test_training_is_deterministic_and_splits_digits(
  texts, model_proto, vocabulary
):
  assert model_proto == vocabulary_lib.train_sentencepiece(
    texts, 400 + EXTRA_IDS, extra_ids=EXTRA_IDS, byte_fallback=False
  )
  digits = vocabulary.encode('48213')
  assert [vocabulary.decode([i]) for i in digits if vocabulary.decode([i])] == [
    *'48213'
  ]


def test_byte_fallback_loses_nothing(texts):
  vocabulary = vocabulary_lib.SentencePieceVocabulary(
    vocabulary_lib.train_sentencepiece(texts, 700)
  )
  assert vocabulary.extra_ids == vocabulary_lib.T5_EXTRA_IDS
  assert vocabulary.vocab_size <= 700
  assert vocabulary.lost_characters('{é~<\\') == ''
  assert vocabulary.decode(vocabulary.encode('a {é} <b')) == 'a {é} <b'


def test_decode_stops_at_eos_and_never_shows_an_unknown(vocabulary):
  ids = vocabulary.encode('The old house.')
  assert vocabulary.decode([0, *ids, 1, *ids]) == 'The old house.'
  assert vocabulary.decode([2, *ids, 2]) == 'The old house.'
  assert vocabulary.decode([*ids, vocabulary.vocab_size + 5]) == (
    'The old house.'
  )
  assert vocabulary.decode([]) == ''


def test_lost_characters_are_named_once_in_order(vocabulary):
  assert vocabulary.lost_characters('a <{~} b\n<é') == '<{~}é'


def test_sentinels_of_the_model_are_not_added_twice(model_proto):
  own = vocabulary_lib.SentencePieceVocabulary(model_proto, extra_ids=100)
  base = sentencepiece_model_pb2.ModelProto.FromString(model_proto)
  del base.pieces[-EXTRA_IDS:]
  added = vocabulary_lib.SentencePieceVocabulary(
    base.SerializeToString(), extra_ids=EXTRA_IDS
  )
  assert own.vocab_size == added.vocab_size
  assert own.hash == added.hash
  fewer = vocabulary_lib.SentencePieceVocabulary(base.SerializeToString(), 3)
  assert fewer.hash != own.hash


def test_folders(tmp_path, model_proto, vocabulary):
  assert vocabulary_lib.load_vocabulary(tmp_path) is None
  (tmp_path / 'tokenizer_config.json').write_text(
    json.dumps({'tokenizer_class': 'ByT5Tokenizer', 'extra_ids': 5})
  )
  loaded = vocabulary_lib.load_vocabulary(tmp_path)
  assert isinstance(loaded, vocabulary_lib.ByteVocabulary)
  assert loaded.vocab_size == 3 + 256 + 5
  (tmp_path / 'spiece.model').write_bytes(model_proto)
  for path in (tmp_path, str(tmp_path / 'spiece.model')):
    assert vocabulary_lib.load_vocabulary(path).hash == vocabulary.hash


def test_a_folder_elsewhere(tmp_path, monkeypatch, model_proto, vocabulary):
  """Paths such as gs://bucket/folder are never taken for local ones."""
  (tmp_path / 'spiece.model').write_bytes(model_proto)
  path = epath.Path

  def bucket(name):
    return path(os.fspath(name).replace('gs://bucket', str(tmp_path)))

  monkeypatch.setattr(vocabulary_lib.epath, 'Path', bucket)
  loaded = vocabulary_lib.load_vocabulary('gs://bucket')
  assert loaded.hash == vocabulary.hash


def test_unreadable_files_are_named(tmp_path, model_proto):
  with pytest.raises(FileNotFoundError, match='nowhere'):
    vocabulary_lib.load_vocabulary(tmp_path / 'nowhere')
  model = tmp_path / 'spiece.model'
  for content in (b'', b'not a model', model_proto[: len(model_proto) // 2]):
    model.write_bytes(content)
    with pytest.raises(ValueError, match='spiece.model: '):
      vocabulary_lib.load_vocabulary(tmp_path)
  (tmp_path / 'tokenizer_config.json').write_text('{')
  with pytest.raises(ValueError, match='tokenizer_config.json: not JSON'):
    vocabulary_lib.load_vocabulary(tmp_path)


def test_a_model_with_other_special_ids_is_refused(model_proto):
  model = sentencepiece_model_pb2.ModelProto.FromString(model_proto)
  model.trainer_spec.pad_piece = '</s>'
  model.trainer_spec.eos_piece = '<pad>'
  with pytest.raises(ValueError, match=r'\(1, 0, 2\)'):
    vocabulary_lib.SentencePieceVocabulary(model.SerializeToString())


def test_bytes():
  vocabulary = vocabulary_lib.ByteVocabulary()
  assert vocabulary.vocab_size == 384
  assert vocabulary.encode('aé') == [97 + 3, 0xC3 + 3, 0xA9 + 3]
  # EOS ends it; padding, unknown, sentinels and half characters leave nothing.
  ids = [0, 100, 2, 0xC3 + 3, 0xA9 + 3, 383, 0xC3 + 3, 1, 100]
  assert vocabulary.decode(ids) == 'aé'
  assert vocabulary.lost_characters('a{\n') == ''
  assert vocabulary.hash != vocabulary_lib.ByteVocabulary(100).hash


def test_seqio_has_the_same_ids(tmp_path, monkeypatch, vocabulary, texts):
  pytest.importorskip('seqio')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  for ours in (vocabulary, vocabulary_lib.ByteVocabulary()):
    theirs = ours.to_seqio()
    assert theirs.vocab_size == ours.vocab_size
    assert theirs.extra_ids == ours.extra_ids
    for text in (*texts[:20], 'x <{'):
      assert list(theirs.encode(text)) == ours.encode(text)
      assert theirs.encode_tf(text).numpy().tolist() == ours.encode(text)


CODE = """\
def f(x, y=1):
    if x:

        return {'é': 123,  'z': [x]}  # two  spaces
\treturn "中文 \u200b \U0001f600"
"""


@pytest.fixture(scope='module')
def code_vocabulary():
  # One line a text, as deeply indented as code is.
  texts = [
    f'{"    " * (i % 4)}{word} = find(x_{i}, {word})\n'
    for i in range(50)
    for word in ('value', 'name', 'result', 'self', 'item')
  ]
  model = vocabulary_lib.train_sentencepiece(texts, 440, keep_whitespace=True)
  return vocabulary_lib.SentencePieceVocabulary(model)


@pytest.mark.parametrize(
  'text',
  [CODE, '', ' ', '\n', '\n\n  x', ' a  b ', 'a\r\n\tb\n', '  ', 'x'],
  ids=repr,
)
def test_source_code_decodes_to_itself(code_vocabulary, text):
  ids = code_vocabulary.encode(text)
  assert code_vocabulary.decode(ids) == text
  assert code_vocabulary.unk_id not in ids


def test_whitespace_of_code_takes_few_pieces(code_vocabulary):
  (newline,) = code_vocabulary.encode('\n')
  assert newline > 2
  assert code_vocabulary.encode('\n\n') == [newline, newline]
  assert len(code_vocabulary.encode(' ' * 12 + 'value')) <= 4


def test_code_vocabulary_is_saved_and_loaded(code_vocabulary, tmp_path):
  code_vocabulary.save(tmp_path)
  loaded = vocabulary_lib.load_vocabulary(tmp_path)
  assert loaded is not None
  assert loaded.hash == code_vocabulary.hash
  assert loaded.encode(CODE) == code_vocabulary.encode(CODE)


def test_hugging_face_reads_code_in_the_same_way(code_vocabulary, tmp_path):
  transformers = pytest.importorskip('transformers')
  code_vocabulary.save(tmp_path)
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
  for text in (CODE, ' ', '\n\n  x', ' a  b .', 'a\r\n\tb\n'):
    ids = code_vocabulary.encode(text)
    assert tokenizer(text).input_ids == [*ids, code_vocabulary.eos_id]
    assert tokenizer.decode(ids) == text
  assert tokenizer.convert_tokens_to_ids('<extra_id_0>') == (
    code_vocabulary.vocab_size - 1
  )
  assert tokenizer.pad_token_id == code_vocabulary.pad_id
  # The other file alone says the same.
  (tmp_path / 'spiece.model').unlink()
  alone = vocabulary_lib.load_vocabulary(tmp_path)
  assert alone is not None
  assert alone.encode(CODE) == code_vocabulary.encode(CODE)
  assert alone.decode(alone.encode(CODE)) == CODE
