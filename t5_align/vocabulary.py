"""Text to token ids and back, for every T5, without TensorFlow.

All T5 vocabularies reserve id 0 for padding, 1 for the end of a sequence and 2
for what they cannot represent. Sentinels (extra ids) come last, in descending
order: `<extra_id_0>` is the last id. Three kinds:

- SentencePiece `.model` files (T5, Flan-T5, mT5, umT5);
- Hugging Face `tokenizer.json` of the Unigram kind, rebuilt as a SentencePiece
  model (see `tokenizer_json`);
- bytes (ByT5): id = byte + 3.

Sources: Kudo and Richardson, "SentencePiece" (arXiv 1808.06226); Xue et al.,
"ByT5" (arXiv 2105.13626); seqio's `vocabularies.py` for the extra ids.

Synopsis:

    vocabulary = load_vocabulary('flan-t5-base')       # a folder or a file
    ids = vocabulary.encode('That is good.')           # no EOS
    vocabulary.decode([*ids, vocabulary.eos_id, 0])    # 'That is good.'
"""

import abc
from collections.abc import Iterable, Sequence
import hashlib
import io
import json
import os
import pathlib
import tempfile
from typing import Any

from etils import epath
from google.protobuf import message
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from t5_align import tokenizer_json

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
    """Return the ids of a text, without EOS."""

  @abc.abstractmethod
  def decode(self, ids: Sequence[int]) -> str:
    """Return the text before the first EOS, without padding and unknowns."""

  @abc.abstractmethod
  def save(self, folder: epath.PathLike) -> None:
    """Write the files that `load_vocabulary` and Hugging Face read."""

  @abc.abstractmethod
  def to_seqio(self) -> Any:
    """Return seqio's vocabulary with the same ids (imports TensorFlow)."""

  def lost_characters(self, text: str) -> str:
    """Return the distinct characters that no id represents, as they come.

    White space is not counted: T5 reads every run of it as one space.
    """
    return ''.join(
      c
      for c in dict.fromkeys(text)
      if not c.isspace() and self.unk_id in self.encode(c)
    )

  def _meaningful(self, ids: Sequence[int]) -> list[int]:
    """Cut at EOS; drop padding, unknowns and rows without a piece."""
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
    """Parse a model.

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
    model = _ModelProto.FromString(self._base_proto)
    if not tokenizer_json.keeps_whitespace(model):
      _save_tokenizer_config(folder, 'T5Tokenizer', self.extra_ids)
      return
    _add_sentinels(model, self.extra_ids)
    content = json.dumps(tokenizer_json.from_model(model), ensure_ascii=False)
    path = epath.Path(folder) / 'tokenizer.json'
    path.write_text(content + '\n', encoding='utf-8')
    names = ('pad_token', 'eos_token', 'unk_token')
    special = zip(names, (piece.piece for piece in model.pieces[:3]))
    _save_tokenizer_config(
      folder,
      'PreTrainedTokenizerFast',
      self.extra_ids,
      # Decoding would take the space before a full stop away.
      clean_up_tokenization_spaces=False,
      **dict(special),
    )

  def to_seqio(self) -> Any:
    import seqio  # takes seconds, and TensorFlow with it

    return seqio.SentencePieceVocabulary(
      os.fspath(self.write_model()), extra_ids=self.extra_ids
    )

  def write_model(self) -> pathlib.Path:
    """Return a file of the model, without sentinels, in the user's cache."""
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


def _save_tokenizer_config(folder, tokenizer_class, extra_ids, **others):
  config = {
    'tokenizer_class': tokenizer_class,
    'extra_ids': extra_ids,
    **others,
  }
  path = epath.Path(folder) / 'tokenizer_config.json'
  path.write_text(json.dumps(config, indent=2) + '\n')


def load_vocabulary(path: str | os.PathLike) -> Vocabulary | None:
  """Load the vocabulary of a model's folder, or of one file.

  Looks for spiece.model, any other *.model, tokenizer.json, and the
  tokenizer_config.json of ByT5, in this order. The number of sentinels is that
  of tokenizer_config.json (`extra_ids`), else T5's.

  Returns:
    None if the folder has no vocabulary.

  Raises:
    FileNotFoundError: there is no such folder or file.
    ValueError: a file that is no vocabulary, or of a kind that T5 does not use.
  """
  path = epath.Path(path)
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
      return SentencePieceVocabulary(tokenizer_json.convert(_read_json(file)))
    return SentencePieceVocabulary(
      file.read_bytes(), config.get('extra_ids', T5_EXTRA_IDS)
    )
  except ValueError as error:
    raise ValueError(f'{file}: {error}') from None


def _find(folder: epath.Path) -> epath.Path | None:
  """Return the file that holds a folder's vocabulary."""
  models = sorted(folder.glob('*.model'))
  for file in (folder / 'spiece.model', *models, folder / 'tokenizer.json'):
    if file.is_file():
      return file
  return None


def _read_json(path: epath.Path) -> dict:
  """Return a JSON object; an empty one if there is no such file."""
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


def _count_sentinels(pieces: Sequence[str]) -> int:
  """Return how many sentinels a model ends in, in descending order."""
  count = 0
  while count < len(pieces) and pieces[-1 - count] == f'▁<extra_id_{count}>':
    count += 1
  return count


def _add_sentinels(model, extra_ids: int) -> None:
  """Append sentinels, the first one last."""
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
  keep_whitespace: bool = False,
) -> bytes:
  """Train a Unigram model with T5's special ids and single digits.

  The same texts give the same model.

  Args:
    texts: to train on.
    vocab_size: number of ids at most, sentinels included; fewer if the texts
      have fewer pieces.
    extra_ids: sentinels, which the model then holds.
    byte_fallback: spend 256 ids on bytes, so that nothing is ever unknown.
    keep_whitespace: for source code: a text is not normalized, begins without
      an added space, and a line break is a piece, as runs of spaces may be.
      With `byte_fallback` every text then decodes to itself, but for '▁'
      (U+2581), by which SentencePiece writes a space.

  Returns:
    The content of a `.model` file.
  """
  file = io.BytesIO()
  options: dict[str, Any] = {'character_coverage': 1.0}
  if keep_whitespace:
    options = {
      'normalization_rule_name': 'identity',
      'add_dummy_prefix': False,
      'remove_extra_whitespaces': False,
      'allow_whitespace_only_pieces': True,
      'user_defined_symbols': ['\n'],
      # Characters too rare for a piece of their own are bytes.
      'character_coverage': 0.9995,
    }
  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(texts),
    model_writer=file,
    model_type='unigram',
    vocab_size=vocab_size - extra_ids,
    hard_vocab_limit=False,
    split_digits=True,
    byte_fallback=byte_fallback,
    max_sentence_length=1 << 20,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    num_threads=1,  # the order of additions decides the last bits
    minloglevel=2,
    **options,
  )
  model = _ModelProto.FromString(file.getvalue())
  _add_sentinels(model, extra_ids)
  return model.SerializeToString(deterministic=True)
