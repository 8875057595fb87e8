"""Model: what load_model() returns; a T5 ready to read, score and write text.

Synopsis:

    model = load_model('google/flan-t5-base')       # or a folder, or 'bundled'
    model.generate(['translate English to German: That is good.'])
    model.score(['Is the sky blue?'], ['yes'])
    model.align(length=16_384).generate(prompts)
    model.with_temperatures(Temperatures(encoder=0.8)).save('sharper')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import json
import os
from typing import Any

from etils import epath
import jax
from jaxtyping import Array, Float, Int
import numpy as np

from t5_align import calibration_text, presets, provenance, results
from t5_align import temperature as temperature_lib
from t5_align.alignment.calibrate import calibrate, key_groups
from t5_align.alignment.calibration import Calibration, CalibrationOptions
from t5_align.alignment.measure import AttentionMeter
from t5_align.alignment.statistics import AttentionStatistics
from t5_align.bundled import find_bundled
from t5_align.calibration_text import CalibrationText
from t5_align.checkpoints import Checkpoint, load_checkpoint, save_safetensors
from t5_align.config import T5Config
from t5_align.inference import Inference, Sampling
from t5_align.network import DecoderOnlyTransformer, Transformer
from t5_align.sharding import Layout, is_writer, make_layout
from t5_align.temperature import Temperatures
from t5_align.vocabulary import Vocabulary, load_vocabulary


@dataclasses.dataclass(frozen=True)
class Model:
  """A T5 with its parameters and vocabulary.

  Attributes:
    checkpoint: what was loaded, and its content hash.
    config: sizes, dtype, attention implementation and temperatures.
    vocabulary: None where the folder has none; text methods then raise.
    training_length: tokens of the input that it was trained on, where known.
    batch_size: examples that are computed at once.
    calibration: how the temperatures were found, in JSON types; None where they
      were given.
    layout: devices that the parameters are on; None for JAX's default one.
  """

  checkpoint: Checkpoint
  config: T5Config
  vocabulary: Vocabulary | None
  training_length: int | None
  batch_size: int = 8
  calibration: Mapping[str, Any] | None = None
  layout: Layout | None = None

  @property
  def params(self) -> dict[str, Any]:
    """Parameters, in T5X's tree."""
    return self.checkpoint.params

  @property
  def temperatures(self) -> Temperatures:
    """What divides the attention logits unless a call says otherwise."""
    return self.config.temperatures

  @functools.cached_property
  def network(self) -> Transformer | DecoderOnlyTransformer:
    """The Flax module."""
    if self.checkpoint.decoder_only:
      return DecoderOnlyTransformer(self.config)
    return Transformer(self.config)

  @functools.cached_property
  def inference(self) -> Inference:
    """Compiled functions on token ids."""
    return Inference(self.network, self.params, batch_size=self.batch_size)

  def logits(
    self,
    encoder_tokens: Int[Array, 'B S'] | np.ndarray | None,
    decoder_tokens: Int[Array, 'B T'] | np.ndarray,
    temperatures: Temperatures | None = None,
  ) -> Float[Array, 'B T V']:
    """Return float32 logits; see `Inference.logits`."""
    return self.inference.logits(encoder_tokens, decoder_tokens, temperatures)

  def encode(
    self,
    encoder_tokens: Int[Array, 'B S'] | np.ndarray,
    temperatures: Temperatures | None = None,
  ) -> Float[Array, 'B S D']:
    """Return the encoder's output."""
    return self.inference.encode(encoder_tokens, temperatures)

  def score(self, inputs: Sequence[str], targets: Sequence[str]) -> list[float]:
    """Return the log-likelihood of each target, EOS included, in nats.

    Args:
      inputs: prompts.
      targets: what is scored, one for each prompt.
    """
    vocabulary = self._text()
    tokens = [[*vocabulary.encode(t), vocabulary.eos_id] for t in targets]
    scored = self.inference.score(self.tokenize(inputs), tokens)
    return [s.log_likelihood for s in scored]

  def generate(
    self,
    inputs: Sequence[str],
    max_new_tokens: int = 64,
    num_beams: int = 1,
    *,
    length_penalty: float = 1.0,
    sampling: Sampling | None = None,
    seed: int = 0,
  ) -> list[str]:
    """Return one output for each input.

    Args:
      inputs: prompts of any length.
      max_new_tokens: at most this many tokens each.
      num_beams: 1 is greedy, or samples.
      length_penalty: of beam search.
      sampling: how to draw tokens; None is greedy.
      seed: of sampling.
    """
    vocabulary = self._text()
    generated = self.inference.generate(
      self.tokenize(inputs),
      max_new_tokens=max_new_tokens,
      num_beams=num_beams,
      length_penalty=length_penalty,
      sampling=sampling,
      seed=seed,
    )
    return [vocabulary.decode(g.tokens) for g in generated]

  def tokenize(self, inputs: Sequence[str]) -> list[list[int]]:
    """Return token ids as the model reads them: an encoder's end in EOS."""
    if isinstance(inputs, str):
      raise TypeError('Wanted a list of strings, got one string.')
    vocabulary = self._text()
    end = [] if self.checkpoint.decoder_only else [vocabulary.eos_id]
    return [[*vocabulary.encode(text), *end] for text in inputs]

  def with_temperatures(
    self,
    temperatures: Temperatures,
    calibration: Mapping[str, Any] | None = None,
  ) -> Model:
    """Return the same model with other temperatures.

    Args:
      temperatures: what divides the attention logits from now on.
      calibration: how they were found, from `calibration_record`; `save` keeps
        it beside them.
    """
    config = dataclasses.replace(self.config, temperatures=temperatures)
    return dataclasses.replace(self, config=config, calibration=calibration)

  def statistics(
    self,
    texts: Sequence[str] | CalibrationText | None,
    length: int,
    *,
    sites: Sequence[str] | None = None,
    num_sequences: int = 8,
    rows_per_sequence: int = 16,
    temperatures: Temperatures | None = None,
  ) -> AttentionStatistics:
    """Measure attention by site, layer and head.

    Args:
      texts: what to read, cut into windows; None for generated prompts.
      length: tokens of a window.
      sites: of 'encoder', 'decoder' and 'cross'; None: the encoder, or the
        decoder of a model without one.
      num_sequences: how many windows, where the texts have as many.
      rows_per_sequence: rows that are looked at whole; 0 for none.
      temperatures: instead of the model's own.

    Returns:
      Statistics by site. Without an encoder rows see from 1 key to all of them:
      the first group has those of the training length, if it is known, and
      there are two more for each octave beyond.
    """
    sequences = self._calibration_text(texts).draw(length, num_sequences)
    default, groups = ('encoder',), None
    if self.checkpoint.decoder_only:
      default = ('decoder',)
      groups = key_groups(self.training_length or length, length)
    meter = AttentionMeter(self.network, self.params, sites or default)
    return meter.measure(
      sequences.inputs,
      sequences.targets,
      length,
      temperatures,
      rows_per_sequence=rows_per_sequence,
      groups=groups,
      strata=sequences.strata,
    )

  def align(
    self,
    length: int,
    texts: Sequence[str] | CalibrationText | None = None,
    strategy: str = 'entropy',
    training_length: int | None = None,
    granularity: str = 'model',
    sites: Sequence[str] | None = None,
    **options: Any,
  ) -> Model:
    """Return the model with temperatures that align its attention.

    Args:
      length: tokens of the inputs to come; longer than the training length.
      texts: what attention is measured on; None for generated prompts, of a
        split that is not evaluated.
      strategy: 'entropy' or 'maximum_probability'.
      training_length: tokens; None for the model's own.
      granularity: one temperature for the 'model' (each site), 'layer', 'head'.
      sites: of 'encoder', 'decoder' and 'cross'; None: the encoder, or the
        decoder of a model without one.
      **options: the other fields of CalibrationOptions.

    Raises:
      ValueError: a length that is not longer than the training length, an
        unknown training length, too little text, or a wrong option.
    """
    source = self._calibration_text(texts)
    calibration = self.calibrate(
      source,
      [length],
      CalibrationOptions(
        strategy=strategy,
        granularity=granularity,
        sites=sites,
        **options,
      ),
      training_length,
    )
    return self.with_temperatures(
      calibration.temperatures, self.calibration_record(calibration, source)
    )

  def calibrate(
    self,
    texts: Sequence[str] | CalibrationText | None,
    lengths: Sequence[int],
    options: CalibrationOptions | None = None,
    training_length: int | None = None,
  ) -> Calibration:
    """Choose temperatures, and return all that was measured on the way.

    Arguments are those of `align` and of `alignment.calibrate`.
    """
    if training_length is None:
      training_length = self.training_length
    if training_length is None:
      raise ValueError(
        f'The length that {self.checkpoint.path} was trained at is not known:'
        ' give training_length, in tokens (512 for T5).'
      )
    return calibrate(
      self.network,
      self.params,
      self._calibration_text(texts),
      training_length,
      lengths,
      options,
    )

  def calibration_record(
    self, calibration: Calibration, text: CalibrationText
  ) -> dict[str, Any]:
    """Return what a temperatures.json says of a calibration, in JSON types."""
    sequences = {str(n): c for n, c in calibration.num_sequences.items()}
    record = {
      **provenance.describe(self),
      'weights': self.fingerprint,
      **calibration.record(),
      'data': {
        'source': text.source,
        'hash': text.hash,
        'sequences': sequences,
      },
    }
    return json.loads(results.to_json(record))

  def check_calibration(
    self, path: os.PathLike | str, calibration: Mapping[str, Any]
  ) -> None:
    """Raise TemperatureError where a calibration is of other weights.

    Args:
      path: of its file, for the message.
      calibration: the record; says of what it is, unless written by hand.
    """
    theirs = calibration.get('weights', self.fingerprint)
    if theirs != self.fingerprint:
      checkpoint = calibration.get('checkpoint')
      name = 'another model'
      if isinstance(checkpoint, dict):
        name = checkpoint.get('path', name)
      raise temperature_lib.TemperatureError(
        f'{path} was calibrated on other weights: {str(theirs)[:8]} of {name};'
        f' those of {self.checkpoint.path} are {self.fingerprint[:8]}.'
        ' Calibrate with this model.'
      )

  @functools.cached_property
  def fingerprint(self) -> str:
    """Which weights these are, whatever format they are stored in."""
    return self.checkpoint.fingerprint

  def save(self, path: str | os.PathLike) -> None:
    """Write a folder that Hugging Face and `load_model` read.

    Args:
      path: gets safetensors, config.json, the tokenizer's files, and
        temperatures.json, which load_model applies and Hugging Face ignores.
        Where several processes share the parameters all of them must call;
        the first one writes.
    """
    path = epath.Path(path)
    save_safetensors(
      path, self.config, self.params, training_length=self.training_length
    )
    if not is_writer(self.params):
      return
    if self.vocabulary is not None:
      self.vocabulary.save(path)
    temperature_lib.save(
      path / 'temperatures.json', self.temperatures, **self.calibration or {}
    )

  def _calibration_text(
    self, texts: Sequence[str] | CalibrationText | None
  ) -> CalibrationText:
    vocabulary, decoder_only = self._text(), self.checkpoint.decoder_only
    if texts is None:
      return calibration_text.GeneratedText(vocabulary, decoder_only)
    if isinstance(texts, CalibrationText):
      return texts
    return calibration_text.PlainText(texts, vocabulary, decoder_only)

  def _text(self) -> Vocabulary:
    if self.vocabulary is None:
      raise ValueError(
        f'{self.checkpoint.path} has no tokenizer (spiece.model or'
        ' tokenizer.json): put one there, or use logits() and encode() with'
        ' token ids.'
      )
    return self.vocabulary


def load_model(
  path_or_hub_id: str | os.PathLike,
  dtype: str | None = None,
  attention: str | None = None,
  *,
  revision: str | None = None,
  config: T5Config | str | None = None,
  vocabulary: str | os.PathLike | None = None,
  temperatures: Temperatures | None = None,
  training_length: int | None = None,
  batch_size: int = 8,
  num_partitions: int = 1,
  layout: Layout | None = None,
) -> Model:
  """Load a T5 from a folder, from the Hugging Face hub, or the bundled one.

  Args:
    path_or_hub_id: a folder in any format of `load_checkpoint`, a hub id, or
      'bundled' for the small model in this package.
    dtype: of activations: 'float32' or 'bfloat16'. None is bfloat16, which T5
      was trained in, and float32 on CPUs, which are slow at bfloat16.
    attention: implementation of `attend`; None for the best that can.
    revision: of a hub id.
    config: sizes or the name of a preset, for a T5X folder.
    vocabulary: a tokenizer's file or folder, for a T5X folder; None for the
      model folder's own.
    temperatures: None for those of the folder's temperatures.json, if any.
    training_length: tokens of the input in training; None for n_positions of
      config.json, else that of the preset of this size.
    batch_size: examples that are computed at once.
    num_partitions: devices that share one copy of the parameters; the batch is
      split over the copies. All devices of the process are used.
    layout: from `make_layout`, in place of num_partitions.

  Returns:
    The model.

  Raises:
    CheckpointError: the folder can't be read; says what and where.
    FileNotFoundError: there is no such vocabulary.
    ValueError: a wrong option, a vocabulary that doesn't fit the model, or
      sizes that don't divide over the devices.
  """
  path_or_hub_id = find_bundled(path_or_hub_id)
  if dtype is None:
    dtype = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
  layout = layout or make_layout(num_partitions)
  checkpoint = load_checkpoint(
    path_or_hub_id, revision=revision, config=config, layout=layout
  )
  stored, record = checkpoint.path / 'temperatures.json', None
  if temperatures is None and stored.exists():
    temperatures, record = temperature_lib.load_calibrated(stored)
  text = load_vocabulary(vocabulary or checkpoint.path)
  if vocabulary and text is None:
    raise ValueError(f'{vocabulary} has no tokenizer.')
  if training_length is None:
    training_length = _training_length(checkpoint)
  size = checkpoint.config.vocab_size
  if text is not None and text.vocab_size > size:
    raise ValueError(
      f'{checkpoint.path}: the tokenizer has {text.vocab_size} pieces, the'
      f' model embeds {size}. They are not of the same model.'
    )
  model = Model(
    checkpoint=checkpoint,
    config=dataclasses.replace(
      checkpoint.config,
      dtype=dtype,
      attention=attention,
      temperatures=temperatures or Temperatures(),
    ),
    vocabulary=text,
    training_length=training_length,
    batch_size=batch_size,
    calibration=record or None,
    layout=layout,
  )
  if record:
    model.check_calibration(stored, record)
  return model


def _training_length(checkpoint: Checkpoint) -> int | None:
  """Take n_positions of config.json, else that of the preset of this size."""
  file = checkpoint.path / 'config.json'
  if file.exists():
    length = json.loads(file.read_text()).get('n_positions')
    if isinstance(length, int) and length > 0:
      return length
  sizes = _sizes(checkpoint.config)
  for preset in presets.PRESETS.values():
    if _sizes(preset.config) == sizes:
      return preset.training_length
  return None


def _sizes(config: T5Config) -> T5Config:
  """The config without what doesn't tell one model from another."""
  return dataclasses.replace(
    config,
    dtype='float32',
    vocab_size=1,
    dropout_rate=0.0,
    temperatures=Temperatures(),
    attention=None,
  )
