"""Tiny random Hugging Face models of every variant: same logits, same outputs.

The models are saved by Hugging Face, loaded by load_checkpoint, and the other
way round. The measure of "same" is Hugging Face's own float32 arithmetic: its
distance from its own float64 result.

T5 1.1, its LM-adapted form and Flan-T5 are one architecture.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from t5_align import network
from t5_align.bundled import BUNDLED_MODEL
from t5_align.checkpoints import load_checkpoint, save_safetensors
from t5_align.inference import Inference
from t5_align.model import load_model
from t5_align.tasks.generators import get_task

torch = pytest.importorskip('torch', reason='The reference needs torch.')
transformers = pytest.importorskip(
  'transformers', reason='The reference is transformers.'
)

SIZES = dict(
  vocab_size=24,
  d_model=32,
  d_kv=8,
  d_ff=64,
  num_layers=2,
  num_decoder_layers=2,
  num_heads=4,
  decoder_start_token_id=0,
)
GATED = dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False)
VARIANTS = {
  't5': dict(feed_forward_proj='relu'),
  't5_1_1': GATED,
  'byt5': GATED | dict(vocab_size=384, num_layers=3, num_decoder_layers=1),
  'umt5': GATED,
}
INPUT_LENGTHS = (333, 217, 30, 1)
TARGET_LENGTHS = (40, 307, 12, 5)
PROMPT_LENGTHS = (310, 120, 33, 20, 9, 8, 5, 2)


@dataclasses.dataclass(frozen=True)
class Pair:
  """A model of theirs, the folder that it saved, and ours from that folder."""

  theirs: Any
  folder: pathlib.Path

  @functools.cached_property
  def ours(self):
    return load_checkpoint(self.folder)

  @functools.cached_property
  def inference(self):
    model = network.Transformer(self.ours.config)
    return Inference(model, self.ours.params, batch_size=len(PROMPT_LENGTHS))


def random_model(name):
  """A model whose attention is peaked and whose outputs vary."""
  kind = 'UMT5' if name == 'umt5' else 'T5'
  config = getattr(transformers, f'{kind}Config')(**SIZES | VARIANTS[name])
  torch.manual_seed(4)
  model = getattr(transformers, f'{kind}ForConditionalGeneration')(config)
  if name != 't5':
    # Versions from 5 on tie it at first whatever the config says.
    model.lm_head.weight = torch.nn.Parameter(
      torch.randn(config.vocab_size, config.d_model)
    )
  with torch.no_grad():
    for parameter_name, parameter in model.named_parameters():
      if 'relative_attention_bias' in parameter_name:
        parameter.normal_(std=2.0)
      elif 'EncDecAttention.q' in parameter_name:
        parameter.mul_(8.0)
      elif 'layer_norm' in parameter_name:
        parameter.uniform_(0.5, 1.5)
      elif '.wo.' in parameter_name or 'EncDecAttention.o' in parameter_name:
        parameter.normal_(std=0.3)
    if name == 't5':
      # A large tied embedding says again what it has read.
      model.shared.weight.mul_(0.02)
      model.decoder.final_layer_norm.weight.mul_(50.0)
  return model.eval()


@pytest.fixture(scope='module', params=VARIANTS)
def pair(request, tmp_path_factory):
  model = random_model(request.param)
  folder = tmp_path_factory.mktemp(request.param)
  model.save_pretrained(folder)
  return Pair(model, folder)


def random_tokens(lengths, vocab_size, seed):
  """Padded rows that end in EOS."""
  generator = np.random.default_rng(seed)
  tokens = np.zeros((len(lengths), max(lengths)), np.int32)
  for row, length in zip(tokens, lengths):
    row[:length] = generator.integers(2, vocab_size, length)
    row[length - 1] = 1
  return tokens


def batch(model):
  vocab_size = model.config.vocab_size
  return (
    random_tokens(INPUT_LENGTHS, vocab_size, 1),
    random_tokens(TARGET_LENGTHS, vocab_size, 2),
  )


def their_logits(model, inputs, targets):
  inputs, targets = torch.tensor(inputs), torch.tensor(targets)
  with torch.no_grad():
    outputs = model(
      input_ids=inputs.long(),
      attention_mask=(inputs > 0).long(),
      decoder_input_ids=torch.nn.functional.pad(targets[:, :-1], (1, 0)).long(),
    )
  return outputs.logits.numpy()


def test_logits_within_their_own_rounding(pair):
  inputs, targets = batch(pair.theirs)
  single = their_logits(pair.theirs, inputs, targets)
  double = their_logits(pair.theirs.double(), inputs, targets)
  pair.theirs.float()
  ours = np.asarray(pair.inference.logits(inputs, targets))
  assert ours.dtype == np.float32
  # Rows of padding are masked in one and not in the other.
  real = targets > 0
  their_error = np.abs(single - double)[real].max()
  our_error = np.abs(ours - double)[real].max()
  assert 0 < our_error <= 2 * their_error


def their_outputs(pair, inputs, **options):
  """What follows the start token, up to EOS."""
  config = pair.ours.config
  tokens = torch.tensor(inputs).long()
  outputs = pair.theirs.generate(
    input_ids=tokens,
    attention_mask=(tokens > 0).long(),
    do_sample=False,
    # The cache of 5.23 wants as many layers in the decoder as in the encoder.
    use_cache=config.num_encoder_layers == config.num_decoder_layers,
    **options,
  )
  rows = outputs[:, 1:].tolist()
  return [row[: row.index(1)] if 1 in row else row for row in rows]


def check_outputs(pair, **options):
  inputs = random_tokens(PROMPT_LENGTHS, pair.theirs.config.vocab_size, 3)
  options['max_new_tokens'] = 16
  theirs = their_outputs(pair, inputs, **options)
  rows = [row[row > 0].tolist() for row in inputs]
  ours = pair.inference.generate(rows, **options)
  assert [generated.tokens for generated in ours] == theirs
  # A model that always says the same would prove nothing.
  assert len({tuple(row) for row in theirs}) > 4
  assert len(set().union(*theirs)) > 5


@pytest.mark.parametrize('num_beams', [1, 4])
def test_outputs_token_for_token(pair, num_beams):
  check_outputs(pair, num_beams=num_beams)


@pytest.mark.parametrize('pair', ['t5_1_1'], indirect=True)
@pytest.mark.parametrize('length_penalty', [0.0, 2.0, -1.0])
def test_length_penalty_token_for_token(pair, length_penalty):
  check_outputs(pair, num_beams=3, length_penalty=length_penalty)


def test_round_trip_is_bit_identical(pair, tmp_path):
  save_safetensors(tmp_path, pair.ours.config, pair.ours.params)
  again, loading = type(pair.theirs).from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not loading['missing_keys'] and not loading['unexpected_keys']
  ours, theirs = again.state_dict(), pair.theirs.state_dict()
  assert ours.keys() == theirs.keys()
  for name, tensor in theirs.items():
    assert torch.equal(ours[name], tensor), name
  inputs, targets = batch(pair.theirs)
  np.testing.assert_array_equal(
    their_logits(again, inputs, targets),
    their_logits(pair.theirs, inputs, targets),
  )
  assert again.generation_config.decoder_start_token_id == 0


def test_round_trip_in_bfloat16(pair, tmp_path):
  half = type(pair.theirs).from_pretrained(pair.folder).bfloat16()
  half.save_pretrained(tmp_path / 'theirs')
  checkpoint = load_checkpoint(tmp_path / 'theirs', dtype='bfloat16')
  leaves = jax.tree.leaves(checkpoint.params)
  assert {leaf.dtype.name for leaf in leaves} == {'bfloat16'}
  save_safetensors(tmp_path / 'ours', checkpoint.config, checkpoint.params)
  again = type(pair.theirs).from_pretrained(tmp_path / 'ours')
  assert again.dtype == torch.bfloat16
  for name, tensor in half.state_dict().items():
    assert torch.equal(again.state_dict()[name], tensor), name


def test_sharded_by_their_writer(pair, tmp_path):
  pair.theirs.save_pretrained(tmp_path, max_shard_size='50KB')
  assert len(list(tmp_path.glob('model-*.safetensors'))) > 1
  sharded = load_checkpoint(tmp_path)
  assert sharded.config == pair.ours.config
  jax.tree.map(np.testing.assert_array_equal, sharded.params, pair.ours.params)


@pytest.mark.slow
def test_the_bundled_model_reads_and_answers_alike():
  """Its folder as it ships: tokens, logits and answers."""
  model = load_model('bundled')
  theirs = transformers.T5ForConditionalGeneration.from_pretrained(
    BUNDLED_MODEL
  ).float()
  tokenizer = transformers.AutoTokenizer.from_pretrained(BUNDLED_MODEL)
  task = get_task('passkey_256')
  samples = list(task.samples(model.vocabulary.encode, limit=3))
  code = 'def area(width, height):\n    return width * height\n'
  for text in (code, *(sample.prompt for sample in samples)):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids == model.vocabulary.encode(text)
  prompts = [model.vocabulary.encode(s.prompt) + [1] for s in samples]
  inputs = np.zeros((3, 256), np.int32)
  for row, ids in zip(inputs, prompts):
    row[: len(ids)] = ids
  targets = random_tokens((20, 9, 3), model.vocabulary.vocab_size, 4)
  expected = their_logits(theirs, inputs, targets)
  logits = np.asarray(model.logits(inputs, targets))
  real = targets > 0
  difference = np.abs(logits - expected)[real].max()
  assert difference <= 1e-5 * np.abs(expected[real]).max()
  outputs = theirs.generate(
    input_ids=torch.tensor(inputs).long(),
    attention_mask=torch.tensor(inputs > 0).long(),
    max_new_tokens=12,
    do_sample=False,
  )
  answers = tokenizer.batch_decode(outputs, skip_special_tokens=True)
  assert answers == [sample.target for sample in samples]
  assert model.generate([s.prompt for s in samples]) == answers
