"""tokenizer.json against the model it was made of and against Hugging Face."""

import base64
import json

import numpy as np
import pytest
from sentencepiece import sentencepiece_model_pb2
import tokenizers

from t5_align import tokenizer_json
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


def as_hugging_face_writes(model_proto):
  """The tokenizer.json of a SentencePiece model."""
  model = sentencepiece_model_pb2.ModelProto.FromString(model_proto)
  # Hugging Face names a sentinel without the space before it.
  pieces = [
    [p.piece.removeprefix('▁') if 'extra_id' in p.piece else p.piece, p.score]
    for p in model.pieces
  ]
  charsmap = base64.b64encode(model.normalizer_spec.precompiled_charsmap)
  return {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': [
      {
        'id': i,
        'content': piece,
        'single_word': False,
        'lstrip': False,
        'rstrip': False,
        'normalized': False,
        'special': True,
      }
      for i, (piece, _) in enumerate(pieces)
      if i < 3 or 'extra_id' in piece
    ],
    'normalizer': {
      'type': 'Sequence',
      'normalizers': [
        {'type': 'Precompiled', 'precompiled_charsmap': charsmap.decode()},
        {'type': 'Strip', 'strip_left': False, 'strip_right': True},
        {'type': 'Replace', 'pattern': {'Regex': ' {2,}'}, 'content': '▁'},
      ],
    },
    'pre_tokenizer': {
      'type': 'Metaspace',
      'replacement': '▁',
      'prepend_scheme': 'always',
      'split': True,
    },
    'post_processor': None,
    'decoder': {
      'type': 'Metaspace',
      'replacement': '▁',
      'prepend_scheme': 'always',
      'split': True,
    },
    'model': {
      'type': 'Unigram',
      'unk_id': 2,
      'vocab': pieces,
      'byte_fallback': False,
    },
  }


def test_tokenizer_json_gives_the_ids_of_the_model_and_of_hugging_face(
  tmp_path, model_proto, vocabulary, texts
):
  path = tmp_path / 'tokenizer.json'
  path.write_text(json.dumps(as_hugging_face_writes(model_proto)))
  loaded = vocabulary_lib.load_vocabulary(tmp_path)
  peer = tokenizers.Tokenizer.from_file(str(path))
  assert loaded.vocab_size == vocabulary.vocab_size
  assert loaded.extra_ids == EXTRA_IDS
  for text in (*texts[:50], 'a  b\tc\nd <extra_id_0>', 'Ａ ① ﬁ é'):
    assert loaded.encode(text) == vocabulary.encode(text)
  # A text with a sentinel is left out: Hugging Face keeps the space before it.
  for text in (*texts[:50], 'Ａ ① ﬁ é'):
    assert loaded.encode(text) == peer.encode(text).ids


def test_tokens_added_behind_the_vocabulary_continue_its_ids(model_proto):
  content = as_hugging_face_writes(model_proto)
  content['model']['vocab'] = content['model']['vocab'][:-EXTRA_IDS]
  proto = tokenizer_json.convert(content)
  assert vocabulary_lib.SentencePieceVocabulary(proto).extra_ids == EXTRA_IDS


@pytest.mark.parametrize(
  ('change', 'complaint'),
  [
    ({'model': {'type': 'BPE'}}, 'type BPE'),
    ({'model': None}, 'type None'),
    ({'normalizer': {'type': 'Lowercase'}}, 'Lowercase'),
    ({'pre_tokenizer': {'type': 'ByteLevel'}}, 'ByteLevel'),
    ({'model': {'type': 'Unigram'}}, "damaged.*'vocab'"),
    ({'model': {'type': 'Unigram', 'vocab': [1, 2, 3]}}, 'damaged'),
    ({'model': [1]}, 'damaged'),
    ({'added_tokens': [{'content': '<pad>'}]}, "damaged.*'id'"),
    ({'normalizer': {}}, "damaged.*'type'"),
  ],
)
def test_other_tokenizers_are_refused(tmp_path, model_proto, change, complaint):
  path = tmp_path / 'tokenizer.json'
  path.write_text(json.dumps({**as_hugging_face_writes(model_proto), **change}))
  with pytest.raises(ValueError, match=f'tokenizer.json: .*{complaint}'):
    vocabulary_lib.load_vocabulary(path)
