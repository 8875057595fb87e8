"""A model that answers by a rule, for tests of everything around it.

It reads the key of a passkey prompt, or the value of a line, out of its
input's bytes: always under an encoder temperature below 1, and without one
for every second sample only. So a run takes no time and has a known outcome.
"""

import dataclasses
import hashlib
import re
import types

from t5_align.config import T5Config
from t5_align.temperature import Temperatures


@dataclasses.dataclass(frozen=True)
class Generated:
  tokens: list[int]
  log_probability: float
  finite: bool


class ByteVocabulary:
  """UTF-8 bytes after three special ids."""

  hash = 'fake-bytes'
  eos_id = 1

  def encode(self, text: str) -> list[int]:
    return [byte + 3 for byte in text.encode()]

  def decode(self, ids: list[int]) -> str:
    return bytes(i - 3 for i in ids if i > 2).decode(errors='ignore')

  def lost_characters(self, text: str) -> str:
    return ''.join(sorted(set(text) & {'<'}))


class FakeInference:
  """Answers, and counts what it was asked."""

  def __init__(self, vocabulary, interrupt_at=None, fail=lambda text: False):
    self.vocabulary = vocabulary
    self.interrupt_at = interrupt_at
    self.fail = fail
    self.num_calls = 0
    self.num_compiled = 1

  def generate(self, inputs, *, max_new_tokens=64, temperatures=None, **_):
    del max_new_tokens
    if self.num_calls == self.interrupt_at:
      raise KeyboardInterrupt
    self.num_calls += 1
    return [self._answer(tokens, temperatures) for tokens in inputs]

  def _answer(self, tokens, temperatures: Temperatures):
    text = self.vocabulary.decode(tokens)
    numbers = re.findall(r'\d{3,}', text) or ['0']
    key = max(numbers, key=numbers.count)
    knows = hashlib.sha256(key.encode()).digest()[0] % 2 == 0
    if temperatures.encoder == 1.0 and not knows:
      key = '7'
    return Generated(
      self.vocabulary.encode(key), -1.0, finite=not self.fail(text)
    )


def fake_model(**inference_options):
  vocabulary = ByteVocabulary()
  return types.SimpleNamespace(
    config=T5Config(
      vocab_size=384,
      num_heads=2,
      num_encoder_layers=1,
      num_decoder_layers=1,
    ),
    vocabulary=vocabulary,
    temperatures=Temperatures(),
    training_length=128,
    layout=None,
    check_calibration=lambda path, calibration: None,
    inference=FakeInference(vocabulary, **inference_options),
    checkpoint=types.SimpleNamespace(
      path='fake', format='fake', content_hash='0' * 64, decoder_only=False
    ),
  )
