"""Training: steps of real networks, packed rows, exact resume."""

import json

from flax import linen as nn
import jax
from jax import numpy as jnp
import numpy as np
import pytest

from t5_align import batches
from t5_align import training as training_lib
from t5_align.inference import Inference
from t5_align.losses import batch_loss
from t5_align.network import DecoderOnlyTransformer, T5Config, Transformer
from t5_align.tasks.pretraining import Example
from t5_align.training import Training

VOCAB_SIZE = 16


class FirstToken(nn.Module):
  """Sees the first input token and the shifted target; quick to compile."""

  dropout_rate: float = 0.1

  @nn.compact
  def __call__(self, inputs, shifted, targets, *, enable_dropout):
    embed = nn.Embed(VOCAB_SIZE, 16)
    x = embed(inputs[:, :1]) + 2.0 * embed(shifted)
    x = nn.relu(nn.Dense(32)(x))
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not enable_dropout)
    return nn.Dense(VOCAB_SIZE)(x)


def draw(generator):
  """Copies the first of up to six random tokens."""
  length = int(generator.integers(2, 7))
  tokens = generator.integers(2, VOCAB_SIZE, length).tolist()
  return Example(tokens + [1], [tokens[0], 1], task=tokens[0] % 2)


def tiny_training(**changes):
  defaults = dict(
    num_steps=6,
    batch_size=4,
    input_lengths=(8,),
    target_length=3,
    learning_rate=1e-2,
    warmup_steps=2,
    log_every=1,
    checkpoint_every=3,
  )
  return Training(**(defaults | changes))


def leaves(state):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def tiny_network(decoder_only, **changes):
  sizes = dict(
    vocab_size=VOCAB_SIZE,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=16,
    attention='reference',
  )
  config = T5Config(**(sizes | changes))
  return (DecoderOnlyTransformer if decoder_only else Transformer)(config)


def unpacked_and_packed(decoder_only):
  """Return batches of the same examples, one a row and several a row."""
  training = tiny_training(
    pack=True, input_lengths=(24,), target_length=24, batch_size=3
  )
  kept = []

  def remember(generator):
    kept.append(draw(generator)._replace(loss_weight=1.0 + len(kept) % 3))
    return kept[-1]

  packed = batches.make_batch(remember, training, decoder_only, 0)
  room = (0 if decoder_only else 8, 12)
  rows = [[example] for example in kept[:-1]]  # the last had no room
  assert len(rows) > 3
  return batches.features(rows, room, packed=False), packed


@pytest.mark.parametrize('decoder_only', [False, True])
class TestNetworks:
  @pytest.mark.slow
  def test_loss_is_what_inference_scores(self, decoder_only):
    network = tiny_network(decoder_only, dropout_rate=0.0)
    training = tiny_training(target_length=12)
    params = training_lib.initial_state(network, training).params
    batch = batches.make_batch(draw, training, decoder_only, 0)
    logits = training_lib.batch_logits(
      network, params, batch, enable_dropout=False
    )
    _, metrics = batch_loss(logits, batch, 0.0, num_tasks=2)
    generator = np.random.default_rng([training.seed, 0])
    examples = [draw(generator) for _ in range(training.batch_size)]
    scored = Inference(network, params).score(
      [list(example.inputs) for example in examples],
      [list(example.targets) for example in examples],
    )
    for task in (0, 1):
      wanted = -sum(
        score.log_likelihood
        for score, example in zip(scored, examples, strict=True)
        if example.task == task
      )
      np.testing.assert_allclose(
        metrics.task_losses[task], wanted, rtol=1e-5, atol=1e-6
      )

  @pytest.mark.slow
  def test_packed_rows_have_the_same_loss(self, decoder_only):
    network = tiny_network(decoder_only, dropout_rate=0.0)
    params = training_lib.initial_state(network, tiny_training()).params
    found = []
    for batch in unpacked_and_packed(decoder_only):
      logits = training_lib.batch_logits(
        network, params, batch, enable_dropout=False
      )
      loss, metrics = batch_loss(logits, batch, 1e-2, num_tasks=2)
      found.append([loss, *metrics.task_losses, *metrics.task_tokens])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)

  @pytest.mark.slow
  def test_resume_is_bit_exact(self, decoder_only, tmp_path):
    network = tiny_network(decoder_only)
    training = tiny_training(
      target_length=12, num_steps=4, checkpoint_every=2, optimizer='adamw'
    )
    wanted = training_lib.fit(network, draw, training, tmp_path / 'straight')

    def stop_at_step_3(row):
      if row['step'] == 3:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
      training_lib.fit(
        network, draw, training, tmp_path / 'a', report=stop_at_step_3
      )
    resumed = training_lib.fit(network, draw, training, tmp_path / 'a')
    assert int(resumed.step) == 4
    for a, b in zip(leaves(wanted), leaves(resumed), strict=True):
      np.testing.assert_array_equal(a, b)

  @pytest.mark.slow
  def test_bfloat16_computes_and_float32_is_trained(
    self, decoder_only, tmp_path
  ):
    network = tiny_network(decoder_only, dtype='bfloat16')
    training = tiny_training(target_length=12, num_steps=1, pack=True)
    rows = []
    state = training_lib.fit(
      network,
      draw,
      training,
      tmp_path,
      report=rows.append,
      tasks=('even', 'odd'),
    )
    assert {leaf.dtype.name for leaf in leaves(state.params)} == {'float32'}
    assert rows[0]['losses'].keys() == {'even', 'odd'}
    assert rows[0]['gradient_norm'] > 0
    assert rows[0]['tokens_per_second'] > 0


@pytest.fixture(scope='module', params=['adafactor', 'adamw'])
def straight(request, tmp_path_factory):
  """Six steps without a stop: the configuration and the final state."""
  training = tiny_training(optimizer=request.param)
  folder = tmp_path_factory.mktemp(request.param)
  return training, training_lib.fit(
    FirstToken(), draw, training, folder, tasks=('even', 'odd')
  )


class TestFit:
  def test_resume_is_bit_exact(self, straight, tmp_path):
    """Stopped after step 5, a run goes back to its checkpoint of step 3."""
    training, wanted = straight

    def stop_at_step_5(row):
      if row['step'] == 5:
        raise KeyboardInterrupt

    network = FirstToken()
    with pytest.raises(KeyboardInterrupt):
      training_lib.fit(network, draw, training, tmp_path, report=stop_at_step_5)
    resumed = training_lib.fit(network, draw, training, tmp_path)
    assert int(resumed.step) == 6
    for a, b in zip(leaves(wanted), leaves(resumed), strict=True):
      np.testing.assert_array_equal(a, b)
    lines = (tmp_path / 'log.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]

  @pytest.mark.slow
  def test_another_run_is_refused_and_named(self, tmp_path):
    recipe = {'network': {'sizes': (1, 2)}}

    def fit(recipe=recipe, **changes):
      training = tiny_training(**({'num_steps': 1} | changes))
      return training_lib.fit(
        FirstToken(), draw, training, tmp_path, recipe=recipe
      )

    fit()
    for changes, name in (
      ({'seed': 1}, 'training.seed=0, now 1'),
      ({'input_lengths': (8, 9)}, 'training.input_lengths='),
      ({'schedule': 'cosine'}, 'training.num_steps=None, now 1'),
      ({'recipe': {'network': {'sizes': (1, 3)}}}, 'network.sizes='),
      ({'recipe': {}}, 'network.sizes='),
    ):
      with pytest.raises(ValueError, match=f'holds a run with {name}'):
        fit(**changes)
    state = fit(num_steps=2, checkpoint_every=4, log_every=2)
    assert int(state.step) == 2
    with pytest.raises(ValueError, match='has done 2 steps already'):
      fit(num_steps=1)

  def test_loss_falls_on_a_tiny_task(self, tmp_path):
    training = tiny_training(
      optimizer='adamw',
      schedule='cosine',
      num_steps=400,
      learning_rate=2e-2,
      batch_size=32,
      input_lengths=(8,),
      warmup_steps=20,
      log_every=50,
      checkpoint_every=400,
    )
    rows = []
    training_lib.fit(
      FirstToken(0.0), draw, training, tmp_path, report=rows.append
    )
    # log(16) = 2.77 for the token and log(2) less for EOS at chance.
    assert rows[0]['loss'] > 1.0
    assert rows[-1]['loss'] < 0.3
    assert rows[-1]['sequence_accuracy'] > 0.9

  def test_only_the_newest_checkpoints_stay(self, tmp_path):
    training = tiny_training(
      num_steps=3, checkpoint_every=1, keep_checkpoints=2
    )
    training_lib.fit(FirstToken(), draw, training, tmp_path)
    kept = sorted(path.name for path in (tmp_path / 'checkpoints').iterdir())
    assert kept == ['2', '3']

  def test_a_loss_that_is_not_finite_names_its_step(self, tmp_path):

    class Breaks(nn.Module):
      """Gives NaN once the bias has been trained for two steps."""

      @nn.compact
      def __call__(self, inputs, shifted, targets, *, enable_dropout):
        bias = self.param('bias', nn.initializers.zeros, (VOCAB_SIZE,))
        moved = jnp.max(jnp.abs(bias)) > 0.012
        logits = jnp.broadcast_to(bias, (*targets.shape, VOCAB_SIZE))
        return jnp.where(moved, jnp.nan, logits)

    training = tiny_training(
      optimizer='adamw', warmup_steps=1, log_every=3, checkpoint_every=3
    )
    with pytest.raises(FloatingPointError, match='the loss of step 3 is nan'):
      training_lib.fit(Breaks(), draw, training, tmp_path)
    assert not list((tmp_path / 'checkpoints').glob('[0-9]*'))
