"""Hugging Face's tokenizer.json as a SentencePiece model, and back.

A Unigram tokenizer.json holds what a `.model` file holds: pieces with their
scores, and the character map of the normalizer. What SentencePiece cannot hold
is refused. Two differences remain: SentencePiece drops a space at the end of a
text, which Hugging Face keeps, and may split equal scores differently.

Of a model that keeps white space as it is, transformers cannot read the
`.model` file (it adds a space in front, and joins runs of spaces), so that one
is written as a tokenizer.json, which gives the same ids.

Sources: `convert_slow_tokenizer.py` of transformers (the way there);
`sentencepiece_model.proto`.

Synopsis:

    model_proto = convert(json.loads(path.read_text()))
    SentencePieceVocabulary(model_proto)
    if keeps_whitespace(model): path.write_text(json.dumps(from_model(model)))
"""

import base64
from collections.abc import Mapping
import re
from typing import Any

from sentencepiece import sentencepiece_model_pb2

# protobuf makes the classes of a file when it is imported, unseen by pyright.
_messages: Any = sentencepiece_model_pb2
_PIECE = _messages.ModelProto.SentencePiece
_NUM_SPECIAL = 3  # padding, end of sequence, unknown
# The only normalizer of a tokenizer that keeps white space as it is.
_ESCAPE = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '▁'}


def convert(tokenizer: Mapping[str, Any]) -> bytes:
  """Return the SentencePiece model of a Unigram tokenizer.json.

  Raises:
    ValueError: another kind of model, a step that SentencePiece lacks, or a
      damaged file.
  """
  try:
    return _convert(tokenizer)
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(
      f'the tokenizer is damaged ({type(error).__name__}: {error}).'
    ) from error


def _convert(tokenizer: Mapping[str, Any]) -> bytes:
  source = tokenizer.get('model') or {}
  if source.get('type') != 'Unigram':
    raise ValueError(
      f"the tokenizer's model is of type {source.get('type')}; T5 vocabularies"
      ' are Unigram. Is this the folder of a T5?'
    )
  model = _messages.ModelProto()
  special = {
    token['id']: token['content'] for token in tokenizer.get('added_tokens', ())
  }
  pieces = [(piece, score) for piece, score in source['vocab']]
  # Tokens added behind the vocabulary continue its ids.
  while len(pieces) in special:
    pieces.append((special[len(pieces)], 0.0))
  byte_fallback = bool(source.get('byte_fallback'))
  for i, (piece, score) in enumerate(pieces):
    kind = _PIECE.NORMAL
    if i == source.get('unk_id'):
      kind = _PIECE.UNKNOWN
    elif re.fullmatch(r'<extra_id_\d+>', piece):
      # As seqio has it: a sentinel stands at the beginning of a word.
      piece, kind = f'▁{piece}', _PIECE.USER_DEFINED
    elif i in special:
      kind = _PIECE.CONTROL if i < _NUM_SPECIAL else _PIECE.USER_DEFINED
    elif byte_fallback and re.fullmatch(r'<0x[0-9A-F]{2}>', piece):
      kind = _PIECE.BYTE
    model.pieces.add(piece=piece, score=score, type=kind)
  _set_specs(model, byte_fallback)
  model.normalizer_spec.precompiled_charsmap = _charsmap(
    tokenizer.get('normalizer')
  )
  model.normalizer_spec.add_dummy_prefix = _adds_prefix(
    tokenizer.get('pre_tokenizer')
  )
  if tokenizer.get('normalizer') == _ESCAPE:
    model.normalizer_spec.name = 'identity'
    model.normalizer_spec.remove_extra_whitespaces = False
  return model.SerializeToString(deterministic=True)


def _set_specs(model, byte_fallback: bool) -> None:
  """Set what T5's own models have."""
  trainer = model.trainer_spec
  trainer.model_type = _messages.TrainerSpec.UNIGRAM
  trainer.vocab_size = len(model.pieces)
  trainer.pad_id, trainer.eos_id, trainer.unk_id, trainer.bos_id = 0, 1, 2, -1
  trainer.pad_piece, trainer.eos_piece, trainer.unk_piece = (
    piece.piece for piece in model.pieces[:_NUM_SPECIAL]
  )
  trainer.byte_fallback = byte_fallback
  model.normalizer_spec.name = 'nmt_nfkc'
  model.normalizer_spec.remove_extra_whitespaces = True
  model.normalizer_spec.escape_whitespaces = True


def _steps(step: dict | None, children: str) -> list[dict]:
  """Flatten a tokenizer.json sequence of steps."""
  if step is None:
    return []
  if step.get('type') == 'Sequence':
    return [s for child in step[children] for s in _steps(child, children)]
  return [step]


def _charsmap(normalizer: dict | None) -> bytes:
  """Return the character map of a tokenizer.json, in SentencePiece's form."""
  charsmap = b''
  for step in _steps(normalizer, 'normalizers'):
    if step['type'] == 'Precompiled':
      charsmap = base64.b64decode(step['precompiled_charsmap'])
    # These two do what SentencePiece does to runs of spaces by itself.
    elif step['type'] not in ('Strip', 'Replace'):
      raise ValueError(
        f"the tokenizer's normalizer has a {step['type']} step, which a"
        ' SentencePiece model cannot hold. Use the spiece.model of this model.'
      )
  return charsmap


def _adds_prefix(pre_tokenizer: dict | None) -> bool:
  """Say whether the first word gets a space before it."""
  prefix = False
  for step in _steps(pre_tokenizer, 'pretokenizers'):
    if step['type'] == 'Metaspace':
      scheme = step.get('prepend_scheme')
      prefix = scheme != 'never' if scheme else step['add_prefix_space']
    elif step['type'] != 'WhitespaceSplit':
      raise ValueError(
        f"the tokenizer's pre-tokenizer has a {step['type']} step, which a"
        ' SentencePiece model cannot hold. Use the spiece.model of this model.'
      )
  return prefix


def keeps_whitespace(model: Any) -> bool:
  """Whether a SentencePiece model (a ModelProto) changes nothing in a text."""
  spec = model.normalizer_spec
  return not (
    spec.precompiled_charsmap
    or spec.add_dummy_prefix
    or spec.remove_extra_whitespaces
  )


def from_model(model: Any) -> dict[str, Any]:
  """Return the tokenizer.json of a model that keeps white space as it is.

  Args:
    model: a ModelProto, with its sentinels.
  """
  pieces = [
    # Hugging Face's sentinels stand anywhere.
    re.sub(r'^▁(?=<extra_id_\d+>$)', '', piece.piece)
    for piece in model.pieces
  ]
  kinds = (_PIECE.CONTROL, _PIECE.UNKNOWN, _PIECE.USER_DEFINED)
  added = [
    {
      'id': i,
      'content': content,
      # White space is text.
      'special': bool(content.strip()),
      **dict.fromkeys(('single_word', 'lstrip', 'rstrip', 'normalized'), False),
    }
    for i, (content, piece) in enumerate(zip(pieces, model.pieces, strict=True))
    if piece.type in kinds
  ]
  end = {'id': pieces[1], 'type_id': 0}
  return {
    'version': '1.0',
    'added_tokens': added,
    'normalizer': _ESCAPE,
    'pre_tokenizer': None,
    'post_processor': {
      'type': 'TemplateProcessing',
      'single': [
        {'Sequence': {'id': 'A', 'type_id': 0}},
        {'SpecialToken': end},
      ],
      'pair': [
        {'Sequence': {'id': 'A', 'type_id': 0}},
        {'SpecialToken': end},
        {'Sequence': {'id': 'B', 'type_id': 0}},
        {'SpecialToken': end},
      ],
      'special_tokens': {
        pieces[1]: {'id': pieces[1], 'ids': [1], 'tokens': [pieces[1]]}
      },
    },
    'decoder': {
      'type': 'Sequence',
      'decoders': [
        {'type': 'ByteFallback'},
        {'type': 'Fuse'},
        {'type': 'Replace', 'pattern': {'String': '▁'}, 'content': ' '},
      ],
    },
    'model': {
      'type': 'Unigram',
      'unk_id': 2,
      'vocab': [
        [content, piece.score]
        for content, piece in zip(pieces, model.pieces, strict=True)
      ],
      'byte_fallback': bool(model.trainer_spec.byte_fallback),
    },
  }
