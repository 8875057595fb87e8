"""The training command: its gin files, the text, the model it writes."""

import dataclasses
import json
import pathlib
import re

import jax
import numpy as np
import pytest

from t5_align import train as train_lib
from t5_align.bundled import BUNDLED_MODEL, BUNDLED_MODELS
from t5_align.model import load_model
from t5_align.network import T5Config
from t5_align.tasks.pretraining import (
  LanguageModel,
  Mixture,
  PrefixLM,
  RetrievalTask,
  SpanCorruption,
  TextTask,
)
from t5_align.training import Training
from t5_align.vocabulary import load_vocabulary

EXPERIMENTS = {
  'bundled': 't5_align/gin_configs/experiments/train_bundled.gin',
  'bundled_lm': 't5_align/gin_configs/experiments/train_bundled_lm.gin',
}
# Four steps of a tiny model.
SMALL = (
  '--gin.TRAIN_STEPS=4',
  '--gin.BATCH_SIZE=2',
  '--gin.training.Training.warmup_steps=1',
  '--gin.training.Training.log_every=2',
  '--gin.training.Training.checkpoint_every=2',
  '--gin.training.Training.data_workers=0',
  '--gin.network.T5Config.emb_dim=16',
  '--gin.network.T5Config.num_decoder_layers=1',
  "--gin.network.T5Config.attention='reference'",
)
NETWORK = T5Config(
  vocab_size=6144,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  num_encoder_layers=1,
  num_decoder_layers=1,
  mlp_dim=16,
  dropout_rate=0.0,
  attention='reference',
)
TRAINING = Training(
  num_steps=2,
  batch_size=4,
  input_lengths=(80,),
  target_length=96,
  warmup_steps=1,
  log_every=2,
  checkpoint_every=2,
)
RETRIEVAL = RetrievalTask('passkey', 0.5, 40, 64, loss_weight=10.0)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  """A folder with text to train on, and some to leave alone."""
  folder = tmp_path_factory.mktemp('corpus')
  row = json.dumps({'text': 'The sky is blue and the grass is green. ' * 20})
  (folder / 'train.jsonl').write_text(f'{row}\n' * 3)
  (folder / 'test.jsonl').write_text('not to be read\n')
  return folder


class TestPython:
  @pytest.mark.slow
  @pytest.mark.parametrize(
    ('objective', 'decoder_only'),
    [(PrefixLM(4, 79, 32), False), (LanguageModel(96), True)],
  )
  def test_smoke_run_leaves_a_model(
    self, corpus, tmp_path, capsys, objective, decoder_only
  ):
    mixture = Mixture((TextTask(objective, rate=0.5), RETRIEVAL))

    def train(**changes):
      options = dict(training=TRAINING, data=corpus)
      train_lib.train(
        NETWORK,
        model_dir=tmp_path,
        mixture=mixture,
        vocabulary='bundled',
        decoder_only=decoder_only,
        **(options | changes),
      )

    train()
    assert re.search(f'{objective.name} [0-9]', capsys.readouterr().out)
    model = load_model(str(tmp_path))
    assert model.checkpoint.decoder_only == decoder_only
    assert model.training_length == (96 if decoder_only else 80)
    assert model.vocabulary.hash == load_vocabulary(BUNDLED_MODEL).hash
    for leaf in jax.tree.leaves(model.params):
      stored = np.asarray(leaf).astype('bfloat16')
      np.testing.assert_array_equal(leaf, stored.astype(np.float32))
    assert isinstance(model.generate(['The sky is'], max_new_tokens=3)[0], str)
    assert np.isfinite(model.score(['The sky is'], ['blue.'])).all()
    settings = json.loads((tmp_path / 'run/settings.json').read_text())
    assert settings['text'][objective.name].startswith('tokens-')
    # Trained on, it is written again; with other text it is another run.
    longer = Training(**(vars(TRAINING) | {'num_steps': 4}))
    train(training=longer)
    assert load_model(str(tmp_path)).checkpoint.content_hash != (
      model.checkpoint.content_hash
    )
    (corpus / 'other.jsonl').write_text('{"text": "%s"}\n' % ('grass ' * 300))
    with pytest.raises(ValueError, match=f'a run with text.{objective.name}='):
      train(training=longer, data=corpus / 'other.jsonl')

  @pytest.mark.parametrize(
    ('task', 'decoder_only', 'message'),
    [
      (PrefixLM(4, 80, 8), False, 'inputs of 81 tokens, input_lengths end'),
      (PrefixLM(4, 79, 97), False, 'rows of 97 tokens, target_length is 96'),
      (PrefixLM(4, 80, 17), True, 'rows of 97 tokens, target_length is 96'),
      (LanguageModel(97), True, 'rows of 97 tokens, target_length is 96'),
      (SpanCorruption(128), False, 'inputs of 128 tokens, input_lengths end'),
      (RetrievalTask(longest_tokens=81), False, 'inputs of 81 tokens'),
      (RetrievalTask(longest_tokens=98), True, 'rows of 97 tokens'),
    ],
  )
  def test_what_fits_no_row(
    self, corpus, tmp_path, task, decoder_only, message
  ):
    if not isinstance(task, RetrievalTask):
      task = TextTask(task)
    with pytest.raises(ValueError, match=message):
      train_lib.train(
        NETWORK,
        TRAINING,
        Mixture((task,)),
        tmp_path / 'model',
        data=corpus,
        decoder_only=decoder_only,
      )
    assert not (tmp_path / 'model').exists()

  def test_a_text_task_needs_text(self, tmp_path):
    mixture = Mixture((TextTask(LanguageModel(96)),))
    with pytest.raises(ValueError, match='language_model has no text: set'):
      train_lib.train(NETWORK, TRAINING, mixture, tmp_path)


class TestCommand:
  @pytest.mark.slow
  @pytest.mark.parametrize('name', EXPERIMENTS)
  def test_smoke_run_writes_a_model_that_loads(
    self, corpus, tmp_path, capsys, name
  ):
    """The recipes of the bundled models, but for their size."""
    command = [
      *(f'--gin_file={EXPERIMENTS[name]}', f'--data={corpus}'),
      *(f'--model_dir={tmp_path}', *SMALL),
    ]
    assert train_lib.main(command) == 0
    assert re.search('step 4 of 4: loss [0-9]', capsys.readouterr().out)
    model, bundled = load_model(str(tmp_path)), load_model(name)
    assert model.config == dataclasses.replace(
      bundled.config, emb_dim=16, num_decoder_layers=1
    )
    assert model.training_length == bundled.training_length == 256
    assert model.vocabulary.hash == bundled.vocabulary.hash
    assert model.checkpoint.decoder_only == (name == 'bundled_lm')
    assert np.isfinite(model.score(['The pass key is'], ['31.'])).all()
    # Continued with another mixture it would be neither model.
    other = '--gin.passkey/mixture.RetrievalTask.rate=2.0'
    assert train_lib.main([*command, other]) == 2
    assert 'a run with mixture.passkey.rate=' in capsys.readouterr().err

  @pytest.mark.slow
  def test_text_comes_from_the_flag(self, tmp_path, corpus):
    command = [
      '--gin_file=t5_align/gin_configs/runs/train.gin',
      f'--model_dir={tmp_path}',
      f'--data={corpus}',
      *SMALL,
      '--gin.DECODER_ONLY=True',
      '--gin.network.T5Config.num_encoder_layers=1',
      "--gin.VOCABULARY='bundled'",
      '--gin.network.T5Config.vocab_size=6144',
      '--gin.mixture.Mixture.tasks=(@mixture.TextTask(),)',
      '--gin.objectives.LanguageModel.target_tokens=32',
    ]
    assert train_lib.main(command) == 0
    assert load_model(str(tmp_path)).checkpoint.decoder_only

  def test_model_dir_is_required(self, capsys):
    assert train_lib.main([]) == 2
    assert 'MODEL_DIR is required: set --model_dir' in capsys.readouterr().err

  def test_misspelt_parameter_names_the_nearest(self, capsys, tmp_path):
    arguments = [f'--model_dir={tmp_path}', f'--data={tmp_path}']
    arguments.append('--gin.training.Training.sed=1')
    assert train_lib.main(arguments) == 2
    assert 'Did you mean seed?' in capsys.readouterr().err

  def test_text_that_is_not_there(self, capsys, tmp_path):
    arguments = [
      f'--model_dir={tmp_path}/model',
      f'--data={tmp_path}/corpsu',
      *SMALL,
      '--gin.mixture.Mixture.tasks=(@mixture.TextTask(),)',
      '--gin.objectives.LanguageModel.target_tokens=24',
    ]
    (tmp_path / 'corpus').mkdir()
    assert train_lib.main(arguments) == 3
    assert "Did you mean 'corpus'?" in capsys.readouterr().err

  def test_model_dir_that_cannot_be_written(self, capsys, tmp_path):
    (tmp_path / 'file').write_text('')
    assert train_lib.main([f'--model_dir={tmp_path}/file/x', *SMALL]) == 2
    assert 'file/x is not writable' in capsys.readouterr().err


class TestBundledModels:
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

  def test_the_language_model_knows_python(self):
    model = load_model('bundled_lm')
    code = 'import os\n\n\ndef read(path):\n  with open(path) as file:\n'
    right, wrong = model.score([code] * 2, ['    return', '    qwerty'])
    assert right > wrong + 5

  @pytest.mark.parametrize('name', EXPERIMENTS)
  def test_their_cards_name_the_experiment_and_the_size(self, name):
    folder = BUNDLED_MODELS[name]
    card = (folder / 'MODEL_CARD.md').read_text()
    assert EXPERIMENTS[name] in card
    sizes = [x.size for x in jax.tree.leaves(load_model(name).params)]
    assert f'{sum(sizes):,} parameters' in card
    files = [f for f in pathlib.Path(folder).rglob('*') if f.is_file()]
    assert sum(file.stat().st_size for file in files) < 16 * 2**20
