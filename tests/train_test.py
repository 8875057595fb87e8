"""The training command: the mixture, the gin file, the model it writes."""

import re

import numpy as np
import pytest

from t5_align import train as train_lib
from t5_align.bundled import BUNDLED_MODEL
from t5_align.model import load_model
from t5_align.train import Mixture
from t5_align.vocabulary import load_vocabulary

EXPERIMENT = 't5_align/gin_configs/experiments/train_bundled.gin'
# Four steps of a tiny model.
SMALL = (
  '--gin.TRAIN_STEPS=4',
  '--gin.BATCH_SIZE=2',
  '--gin.training.Training.warmup_steps=1',
  '--gin.training.Training.log_every=2',
  '--gin.training.Training.checkpoint_every=2',
  '--gin.training.Training.data_workers=0',
  '--gin.network.T5Config.num_encoder_layers=1',
  '--gin.network.T5Config.emb_dim=16',
  "--gin.network.T5Config.attention='reference'",
)


class TestMixture:
  def test_prompts_fill_the_lengths_and_no_more(self):
    encode = load_vocabulary(BUNDLED_MODEL).encode
    generator = np.random.default_rng(0)
    mixture = Mixture(shortest_tokens=64, longest_tokens=128)
    lengths = [
      len(encode(mixture.sample(generator, encode).prompt)) + 1
      for _ in range(300)
    ]
    assert max(lengths) <= 128
    assert max(lengths) > 120
    assert min(lengths) < 70

  def test_both_families_and_every_wording_are_drawn(self):
    encode = load_vocabulary(BUNDLED_MODEL).encode
    generator = np.random.default_rng(0)
    prompts = [Mixture().sample(generator, encode).prompt for _ in range(100)]
    for words in (
      'What is the pass key?',
      'secret number is',
      'locker opens with',
      'What is in line',
      'account',
      ' = ',
    ):
      assert any(words in prompt for prompt in prompts), words

  def test_share_one_is_the_default_wording_alone(self):
    encode = load_vocabulary(BUNDLED_MODEL).encode
    generator = np.random.default_rng(0)
    mixture = Mixture(families=('passkey',), default_template_share=1.0)
    for _ in range(50):
      prompt = mixture.sample(generator, encode).prompt
      assert prompt.endswith('What is the pass key?')

  def test_examples_end_in_eos(self):
    path = str(BUNDLED_MODEL / 'spiece.model')
    inputs, targets = train_lib.Examples(Mixture(), path)(
      np.random.default_rng(3)
    )
    assert inputs[-1] == targets[-1] == 1
    assert 0 not in inputs + targets


class TestCommand:
  @pytest.mark.slow
  def test_smoke_run_writes_a_model_that_loads(self, tmp_path, capsys):
    command = [f'--gin_file={EXPERIMENT}', f'--model_dir={tmp_path}', *SMALL]
    assert train_lib.main(command) == 0
    assert re.search('step 4 of 4: loss [0-9]', capsys.readouterr().out)
    model = load_model(str(tmp_path))
    assert model.config.emb_dim == 16
    assert model.training_length == 128
    assert model.vocabulary.hash == load_vocabulary(BUNDLED_MODEL).hash
    tokens = np.array([model.vocabulary.encode('The pass key is 31.') + [1]])
    logits = model.logits(tokens.astype(np.int32), np.array([[1]], np.int32))
    assert np.isfinite(logits).all()
    # Continued with another mixture it would be neither model.
    other = "--gin.train_script.Mixture.families=('passkey',)"
    assert train_lib.main([*command, other]) == 2
    assert 'a run with mixture.families=' in capsys.readouterr().err

  def test_model_dir_is_required(self, capsys):
    assert train_lib.main([]) == 2
    assert 'MODEL_DIR is required: set --model_dir' in capsys.readouterr().err

  def test_misspelt_parameter_names_the_nearest(self, capsys, tmp_path):
    arguments = [f'--model_dir={tmp_path}']
    arguments.append('--gin.training.Training.sed=1')
    assert train_lib.main(arguments) == 2
    assert 'Did you mean seed?' in capsys.readouterr().err

  def test_another_vocabulary_is_not_taken(self, capsys, tmp_path):
    (tmp_path / 'spiece.model').write_bytes(b'of an earlier run')
    assert train_lib.main([f'--model_dir={tmp_path}', *SMALL]) == 2
    assert 'is another vocabulary than' in capsys.readouterr().err
    assert (tmp_path / 'spiece.model').read_bytes() == b'of an earlier run'

  def test_model_dir_that_cannot_be_written(self, capsys, tmp_path):
    (tmp_path / 'file').write_text('')
    assert train_lib.main([f'--model_dir={tmp_path}/file/x', *SMALL]) == 2
    assert 'file/x is not writable' in capsys.readouterr().err

  def test_vocabulary_larger_than_the_network(self, capsys, tmp_path):
    arguments = [
      f'--model_dir={tmp_path}',
      *SMALL,
      '--gin.network.T5Config.vocab_size=1000',
    ]
    assert train_lib.main(arguments) == 2
    error = capsys.readouterr().err
    assert 'has 1389 pieces, the network has vocab_size=1000' in error


class TestBundledModel:
  def test_answers_at_its_training_length(self):
    model = load_model('bundled')
    prompts = [
      'The cat sat by the fire. The pass key is 48213. The old man walked in'
      ' the garden every day. What is the pass key?',
      'line amber apple: 4711\nline brave owl: 20384\nline icy pond: 977\n'
      'What is in line brave owl?',
    ]
    answers = model.generate(prompts, max_new_tokens=24)
    assert answers == ['48213', 'brave owl: 20384']

  def test_its_card_names_the_experiment(self):
    card = (BUNDLED_MODEL / 'MODEL_CARD.md').read_text()
    assert EXPERIMENT in card
