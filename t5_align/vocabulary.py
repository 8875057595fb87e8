"""Text to token ids and back, for every T5, without TensorFlow.

All T5 vocabularies reserve id 0 for padding, 1 for the end of a sequence and 2
for what they cannot represent. Sentinels (extra ids) come last, in descending
order: `<extra_id_0>` is the last id. Three kinds:

- SentencePiece `.model` files (T5, Flan-T5, mT5, umT5);
- Hugging Face `tokenizer.json` of the Unigram kind, rebuilt as a SentencePiece
  model: same pieces, scores and normalization. It drops a space at the end of
  a text, which Hugging Face keeps, and may split equal scores differently;
- bytes (ByT5): id = byte + 3.

Sources: Kudo and Richardson, "SentencePiece" (arXiv 1808.06226); Xue et al.,
"ByT5" (arXiv 2105.13626); seqio's `vocabularies.py` for the extra ids.

Synopsis:
  vocabulary = load_vocabulary('flan-t5-base')       # a folder or a file
  ids = vocabulary.encode('That is good.')           # no EOS
  vocabulary.decode([*ids, vocabulary.eos_id, 0])    # 'That is good.'
"""

import abc
import base64
from collections.abc import Iterable, Sequence
import hashlib
import io
import json
import os
import pathlib
import re
import tempfile
from typing import Any

from etils import epath
from google.protobuf import message
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

# T5X and the released checkpoints: 32,000 pieces and 100 sentinels.
T5_EXTRA_IDS = 100
BYT5_EXTRA_IDS = 125
_NUM_SPECIAL = 3

# protobuf makes the classes of a file when it is imported, unseen by pyright.
_messages: Any = sentencepiece_model_pb2
_ModelProto = _messages.ModelProto
_PIECE = _ModelProto.SentencePiece


class Vocabulary(abc.ABC):
  """Maps text to ids and back."""

  pad_id = 0
  eos_id = 1
  unk_id = 2

  @property
  @abc.abstractmethod
  def vocab_size(self) -> int:
    """Number of ids, sentinels included; a model may have more rows."""

  @property
  @abc.abstractmethod
  def hash(self) -> str:
    """SHA-256 of what decides the ids, in hex."""

  @abc.abstractmethod
  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, without EOS."""

  @abc.abstractmethod
  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text before the first EOS, without padding and unknowns."""

  @abc.abstractmethod
  def save(self, folder: epath.PathLike) -> None:
    """Writes the files that `load_vocabulary` and Hugging Face read."""

  @abc.abstractmethod
  def to_seqio(self) -> Any:
    """Returns seqio's vocabulary with the same ids (imports TensorFlow)."""

  def lost_characters(self, text: str) -> str:
    """Returns the distinct characters that no id represents, as they come.

    White space is not counted: T5 reads every run of it as one space.
    """
    return ''.join(
      c
      for c in dict.fromkeys(text)
      if not c.isspace() and self.unk_id in self.encode(c)
    )

  def _meaningful(self, ids: Sequence[int]) -> list[int]:
    """Cuts at EOS; drops padding, unknowns and rows without a piece."""
    kept = []
    for i in ids:
      if i == self.eos_id:
        break
      if i not in (self.pad_id, self.unk_id) and 0 <= i < self.vocab_size:
        kept.append(int(i))
    return kept


class SentencePieceVocabulary(Vocabulary):
  """The pieces of a SentencePiece model, then the sentinels."""

  def __init__(self, model_proto: bytes, extra_ids: int = T5_EXTRA_IDS):
    """Parses a model.

    Args:
      model_proto: content of a `.model` file.
      extra_ids: sentinels to add; if the model ends in its own (mT5, umT5),
        those are all.

    Raises:
      ValueError: not a SentencePiece model, or not with T5's special ids.
    """
    model = _ModelProto()
    try:
      model.ParseFromString(model_proto)
    except message.DecodeError as error:
      raise ValueError(f'not a SentencePiece model: {error}.') from None
    own = _count_sentinels([piece.piece for piece in model.pieces])
    if own:
      del model.pieces[-own:]
    self.extra_ids = own or extra_ids
    # What seqio is given: it adds the sentinels itself.
    self._base_proto = model.SerializeToString(deterministic=True)
    _add_sentinels(model, self.extra_ids)
    proto = model.SerializeToString(deterministic=True)
    self._processor = sentencepiece.SentencePieceProcessor()
    try:
      self._processor.LoadFromSerializedProto(proto)
    except RuntimeError as error:
      raise ValueError(f'not a usable SentencePiece model: {error}') from None
    self._hash = hashlib.sha256(proto).hexdigest()
    special = (
      self._processor.pad_id(),
      self._processor.eos_id(),
      self._processor.unk_id(),
    )
    if special != (self.pad_id, self.eos_id, self.unk_id):
      raise ValueError(
        f'the SentencePiece model has pad, eos, unk = {special}; T5 needs'
        f' (0, 1, 2). Train it with pad_id=0, eos_id=1, unk_id=2.'
      )

  @property
  def vocab_size(self) -> int:
    return self._processor.GetPieceSize()

  @property
  def hash(self) -> str:
    return self._hash

  def encode(self, text: str) -> list[int]:
    return self._processor.EncodeAsIds(text)

  def decode(self, ids: Sequence[int]) -> str:
    return self._processor.DecodeIds(self._meaningful(ids))

  def save(self, folder: epath.PathLike) -> None:
    (epath.Path(folder) / 'spiece.model').write_bytes(self._base_proto)
    _save_tokenizer_config(folder, 'T5Tokenizer', self.extra_ids)

  def to_seqio(self) -> Any:
    import seqio  # takes seconds, and TensorFlow with it

    return seqio.SentencePieceVocabulary(
      os.fspath(self.write_model()), extra_ids=self.extra_ids
    )

  def write_model(self) -> pathlib.Path:
    """Returns a file of the model, without sentinels, in the user's cache."""
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    folder = pathlib.Path(cache).expanduser() / 't5_align' / 'vocabularies'
    name = hashlib.sha256(self._base_proto).hexdigest()
    path = folder / f'{name}.model'
    if not path.exists():
      folder.mkdir(parents=True, exist_ok=True)
      # Moved into place whole: several processes may write it at once.
      with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(self._base_proto)
      os.replace(file.name, path)
    return path


class ByteVocabulary(Vocabulary):
  """UTF-8 bytes; the sentinels have ids but no text."""

  def __init__(self, extra_ids: int = BYT5_EXTRA_IDS):
    self.extra_ids = extra_ids

  @property
  def vocab_size(self) -> int:
    return _NUM_SPECIAL + 256 + self.extra_ids

  @property
  def hash(self) -> str:
    return hashlib.sha256(f'bytes+{self.extra_ids}'.encode()).hexdigest()

  def encode(self, text: str) -> list[int]:
    return [byte + _NUM_SPECIAL for byte in text.encode()]

  def decode(self, ids: Sequence[int]) -> str:
    kept = (i - _NUM_SPECIAL for i in self._meaningful(ids))
    return bytes(i for i in kept if i < 256).decode(errors='ignore')

  def save(self, folder: epath.PathLike) -> None:
    _save_tokenizer_config(folder, 'ByT5Tokenizer', self.extra_ids)

  def to_seqio(self) -> Any:
    import seqio  # takes seconds, and TensorFlow with it

    return seqio.ByteVocabulary(extra_ids=self.extra_ids)


def _save_tokenizer_config(folder, tokenizer_class, extra_ids):
  config = {'tokenizer_class': tokenizer_class, 'extra_ids': extra_ids}
  path = epath.Path(folder) / 'tokenizer_config.json'
  path.write_text(json.dumps(config, indent=2) + '\n')


def load_vocabulary(path: str | os.PathLike) -> Vocabulary | None:
  """Loads the vocabulary of a model's folder, or of one file.

  Looks for spiece.model, any other *.model, tokenizer.json, and the
  tokenizer_config.json of ByT5, in this order. The number of sentinels is that
  of tokenizer_config.json (`extra_ids`), else T5's.

  Returns:
    None if the folder has no vocabulary.

  Raises:
    FileNotFoundError: there is no such folder or file.
    ValueError: a file that is no vocabulary, or of a kind that T5 does not use.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise FileNotFoundError(f'No vocabulary at {path}: nothing is there.')
  folder = path if path.is_dir() else path.parent
  config = _read_json(folder / 'tokenizer_config.json')
  file = _find(path) if path.is_dir() else path
  if file is None:
    if config.get('tokenizer_class') in ('ByT5Tokenizer', 'ByT5TokenizerFast'):
      return ByteVocabulary(config.get('extra_ids', BYT5_EXTRA_IDS))
    return None
  try:
    if file.suffix == '.json':
      return SentencePieceVocabulary(convert_tokenizer_json(_read_json(file)))
    return SentencePieceVocabulary(
      file.read_bytes(), config.get('extra_ids', T5_EXTRA_IDS)
    )
  except ValueError as error:
    raise ValueError(f'{file}: {error}') from None


def _find(folder: pathlib.Path) -> pathlib.Path | None:
  """Returns the file that holds a folder's vocabulary."""
  models = sorted(folder.glob('*.model'))
  for file in (folder / 'spiece.model', *models, folder / 'tokenizer.json'):
    if file.is_file():
      return file
  return None


def _read_json(path: pathlib.Path) -> dict:
  """Returns a JSON object; an empty one if there is no such file."""
  if not path.is_file():
    return {}
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{path}: not JSON: {error}.') from None
  if not isinstance(content, dict):
    raise ValueError(
      f'{path}: got a {type(content).__name__}; wanted an object.'
    )
  return content


def convert_tokenizer_json(tokenizer: dict) -> bytes:
  """Returns the SentencePiece model of a Unigram tokenizer.json.

  Raises:
    ValueError: another kind of model, or a step that SentencePiece lacks.
  """
  source = tokenizer.get('model') or {}
  if source.get('type') != 'Unigram':
    raise ValueError(
      f"the tokenizer's model is of type {source.get('type')}; T5 vocabularies"
      ' are Unigram. Is this the folder of a T5?'
    )
  model = _ModelProto()
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
  return model.SerializeToString(deterministic=True)


def _set_specs(model, byte_fallback: bool) -> None:
  """Sets what T5's own models have."""
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
  """Flattens a tokenizer.json sequence of steps."""
  if step is None:
    return []
  if step.get('type') == 'Sequence':
    return [s for child in step[children] for s in _steps(child, children)]
  return [step]


def _charsmap(normalizer: dict | None) -> bytes:
  """Returns the character map of a tokenizer.json, in SentencePiece's form."""
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
  """Says whether the first word gets a space before it."""
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


def _count_sentinels(pieces: Sequence[str]) -> int:
  """Returns how many sentinels a model ends in, in descending order."""
  count = 0
  while count < len(pieces) and pieces[-1 - count] == f'▁<extra_id_{count}>':
    count += 1
  return count


def _add_sentinels(model, extra_ids: int) -> None:
  """Appends sentinels, the first one last."""
  for i in reversed(range(extra_ids)):
    model.pieces.add(
      piece=f'▁<extra_id_{i}>', score=0.0, type=_PIECE.USER_DEFINED
    )


def train_sentencepiece(
  texts: Iterable[str],
  vocab_size: int,
  *,
  extra_ids: int = T5_EXTRA_IDS,
  byte_fallback: bool = True,
) -> bytes:
  """Trains a Unigram model with T5's special ids and single digits.

  The same texts give the same model.

  Args:
    texts: to train on.
    vocab_size: number of ids at most, sentinels included; fewer if the texts
      have fewer pieces.
    extra_ids: sentinels, which the model then holds.
    byte_fallback: spend 256 ids on bytes, so that nothing is ever unknown.

  Returns:
    The content of a `.model` file.
  """
  file = io.BytesIO()
  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(texts),
    model_writer=file,
    model_type='unigram',
    vocab_size=vocab_size - extra_ids,
    hard_vocab_limit=False,
    character_coverage=1.0,
    split_digits=True,
    byte_fallback=byte_fallback,
    max_sentence_length=1 << 20,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    num_threads=1,  # the order of additions decides the last bits
    minloglevel=2,
  )
  model = _ModelProto.FromString(file.getvalue())
  _add_sentinels(model, extra_ids)
  return model.SerializeToString(deterministic=True)
