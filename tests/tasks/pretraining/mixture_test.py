"""Examples of a mixture: rates, lengths, wordings, and where EOS stands."""

import collections
import json

import numpy as np
import pytest

from t5_align.bundled import BUNDLED_MODEL
from t5_align.tasks.pretraining import token_stream
from t5_align.tasks.pretraining.mixture import (
  Examples,
  Mixture,
  RetrievalTask,
  TextTask,
)
from t5_align.tasks.pretraining.objectives import (
  LanguageModel,
  PrefixLM,
  SpanCorruption,
)
from t5_align.vocabulary import load_vocabulary


@pytest.fixture(scope='module')
def encode():
  return load_vocabulary(BUNDLED_MODEL).encode


@pytest.fixture(scope='module')
def stream(tmp_path_factory):
  folder = tmp_path_factory.mktemp('text')
  text = 'The sky is blue and the old man walked in the garden. ' * 40
  (folder / 'a.jsonl').write_text(json.dumps({'text': text}) + '\n')
  return token_stream.tokenize([str(folder / 'a.jsonl')], BUNDLED_MODEL, folder)


def examples(*tasks, stream=None, **options):
  streams = tuple(stream if isinstance(t, TextTask) else None for t in tasks)
  return Examples(Mixture(tasks), streams, str(BUNDLED_MODEL), **options)


class TestRetrieval:
  def test_prompts_fill_the_lengths_and_no_more(self, encode):
    rng = np.random.default_rng(0)
    task = RetrievalTask('passkey', shortest_tokens=64, longest_tokens=128)
    lengths = [
      len(encode(task.sample(rng, encode).prompt)) + 1 for _ in range(300)
    ]
    assert max(lengths) <= 128
    assert max(lengths) > 120
    assert min(lengths) < 70

  def test_every_wording_is_drawn(self, encode):
    rng = np.random.default_rng(0)
    tasks = Mixture().tasks
    prompts = [
      task.sample(rng, encode).prompt for task in tasks for _ in range(50)
    ]
    for words in (
      'What is the pass key?',
      'secret number is',
      'locker opens with',
      'What is in line',
      'account',
      ' = ',
    ):
      assert any(words in prompt for prompt in prompts), words

  def test_share_one_is_the_default_wording_alone(self, encode):
    rng = np.random.default_rng(0)
    task = RetrievalTask('passkey', default_template_share=1.0)
    for _ in range(50):
      prompt = task.sample(rng, encode).prompt
      assert prompt.endswith('What is the pass key?')

  def test_eos_ends_an_encoders_input_and_every_answer(self):
    rng = np.random.default_rng(3)
    for decoder_only, last in ((False, True), (True, False)):
      draw = examples(RetrievalTask(), decoder_only=decoder_only)
      example = draw(rng)
      assert (example.inputs[-1] == 1) == last
      assert example.targets[-1] == 1
      assert 0 not in [*example.inputs, *example.targets]

  def test_what_does_not_fit_a_row_is_drawn_again(self):
    rng = np.random.default_rng(0)
    task = RetrievalTask('line_retrieval', longest_tokens=128)
    draw = examples(task, decoder_only=True, target_tokens=128)
    rows = [sum(map(len, draw(rng)[:2])) for _ in range(100)]
    assert max(rows) <= 128
    assert max(rows) > 120
    with pytest.raises(ValueError, match='none of 100 samples fits a row of 9'):
      examples(task, decoder_only=True, target_tokens=9)(rng)
    with pytest.raises(ValueError, match='fits 512 tokens and 2 to answer'):
      examples(task, target_tokens=2)(rng)

  def test_lengths_without_room_for_a_needle_are_drawn_again(self, encode):
    rng = np.random.default_rng(0)
    task = RetrievalTask('passkey', shortest_tokens=1, longest_tokens=64)
    assert len(examples(task)(rng).inputs) > 10
    with pytest.raises(ValueError, match='too few|too small'):
      examples(RetrievalTask('passkey', 1.0, 1, 2))(rng)

  def test_unknown_family(self):
    with pytest.raises(ValueError, match="Did you mean 'passkey'"):
      RetrievalTask('passkeys')


class TestText:
  def test_a_text_that_goes_on_has_no_eos(self, stream):
    rng = np.random.default_rng(0)
    prefix = TextTask(PrefixLM(3, 9, 6))
    example = examples(prefix, stream=stream)(rng)
    assert example.inputs[-1] == 1 and 1 not in example.inputs[:-1]
    assert len(example.targets) == 6 and 1 not in example.targets
    text = [*example.inputs[:-1], *example.targets]
    whole = stream.ids.tolist()
    assert any(whole[i : i + len(text)] == text for i in range(len(whole)))
    example = examples(prefix, stream=stream, decoder_only=True)(rng)
    assert 1 not in example.inputs

  def test_a_language_models_row_is_a_window(self, stream):
    task = TextTask(LanguageModel(12))
    draw = examples(task, stream=stream, decoder_only=True)
    example = draw(np.random.default_rng(0))
    assert len(example.inputs) == 0
    assert len(example.targets) == 12

  def test_corrupted_text_has_the_vocabularys_sentinels(self, stream):
    draw = examples(TextTask(SpanCorruption(32)), stream=stream)
    example = draw(np.random.default_rng(0))
    assert len(example.inputs) == 32
    assert example.inputs[-1] == example.targets[-1] == 1
    vocabulary = load_vocabulary(BUNDLED_MODEL)
    assert example.targets[0] == vocabulary.vocab_size - 1
    assert vocabulary.encode(' <extra_id_0>')[-1] == vocabulary.vocab_size - 1


class TestMixture:
  def test_tasks_come_at_their_rates_with_their_weights(self, stream):
    draw = examples(
      TextTask(LanguageModel(8), rate=3.0),
      RetrievalTask('passkey', rate=1.0, loss_weight=10.0),
      RetrievalTask('line_retrieval', rate=0.0),
      stream=stream,
    )
    rng = np.random.default_rng(0)
    drawn = [draw(rng) for _ in range(400)]
    counts = collections.Counter(example.task for example in drawn)
    assert 0.7 < counts[0] / 400 < 0.8
    assert counts[2] == 0
    assert {e.task: e.loss_weight for e in drawn} == {0: 1.0, 1: 10.0}

  def test_names_are_distinct(self):
    tasks = (
      TextTask(LanguageModel(8)),
      RetrievalTask('passkey'),
      TextTask(LanguageModel(9)),
    )
    mixture = Mixture(tasks)
    assert mixture.names == ('language_model', 'passkey', 'language_model_2')
    described = mixture.describe()
    assert described['language_model_2']['objective'] == {'target_tokens': 9}

  @pytest.mark.parametrize('rates', [(), (0.0,), (1.0, -1.0)])
  def test_wrong_rates(self, rates):
    with pytest.raises(ValueError, match='have rates'):
      Mixture(tuple(RetrievalTask(rate=rate) for rate in rates))

  def test_texts_are_of_its_generated_tasks(self):
    mixture = Mixture((TextTask(), RetrievalTask('passkey')))
    prompt, answer = list(mixture.texts(1))
    assert answer in prompt
    assert not list(Mixture((TextTask(),)).texts(3))
