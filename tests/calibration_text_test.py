"""Sequences to calibrate on: lengths, what is shared, what is never used."""

import functools
import gzip
import itertools
import json

import hypothesis
from hypothesis import strategies
import pytest

from t5_align import calibration_text
from t5_align.bundled import BUNDLED_MODEL
from t5_align.calibration_text import (
  FileText,
  GeneratedText,
  PlainText,
  text_for,
)
from t5_align.tasks import generators
from t5_align.vocabulary import (
  ByteVocabulary,
  SentencePieceVocabulary,
  load_vocabulary,
  train_sentencepiece,
)

BYTES = ByteVocabulary()
EOS = BYTES.eos_id


@functools.cache
def bundled():
  vocabulary = load_vocabulary(BUNDLED_MODEL)
  assert vocabulary is not None
  return vocabulary


@functools.cache
def no_digits():
  model = train_sentencepiece(
    ['the old man saw a house'] * 9, 200, extra_ids=100, byte_fallback=False
  )
  return SentencePieceVocabulary(model)


def numbers(count):
  """Text whose every place can be told, seven bytes a number."""
  return ''.join(f'{i:06d} ' for i in range(count))


# Texts of documents.


@hypothesis.given(
  sizes=strategies.lists(strategies.integers(1, 60), min_size=1, max_size=8),
  length=strategies.integers(2, 80),
  count=strategies.integers(1, 20),
  target_tokens=strategies.integers(1, 30),
)
def test_windows_have_exact_lengths_and_what_follows_is_the_target(
  sizes, length, count, target_tokens
):
  whole = numbers(sum(sizes))
  texts, start = [], 0
  for size in sizes:
    texts.append(whole[7 * start : 7 * (start + size)])
    start += size
  text = PlainText(texts, BYTES, target_tokens=target_tokens, min_count=1)
  try:
    drawn = text.draw(length, count)
  except ValueError as error:
    assert 'Give more text' in str(error)
    assert len(whole) + len(texts) - 1 < length - 1 + target_tokens - 1
    return
  assert 1 <= len(drawn.inputs) == len(drawn.targets) <= count
  covered = []
  joined = '\n'.join(texts)
  for inputs, targets in zip(drawn.inputs, drawn.targets, strict=True):
    assert (len(inputs), inputs[-1]) == (length, EOS)
    assert (len(targets), targets[-1]) == (target_tokens, EOS)
    piece = BYTES.decode(inputs)
    assert piece + BYTES.decode(targets) in joined
    # Fourteen characters hold one number whole.
    if length > 14:
      covered.append(joined.index(piece))
  assert all(
    b - a >= length - 1 for a, b in itertools.pairwise(sorted(covered))
  )
  assert text.draw(length, count) == drawn


def test_decoder_only_windows_have_neither_eos_nor_targets():
  drawn = PlainText([numbers(30)], BYTES, True).draw(70, 9)
  assert [BYTES.decode(i) for i in drawn.inputs[:2]] == [
    numbers(30)[:70],
    numbers(30)[70:140],
  ]
  assert drawn.targets == ((), (), ())


def test_short_windows_are_cut_out_of_the_same_text():
  text = PlainText([numbers(5000)], BYTES)
  long = [BYTES.decode(i) for i in text.draw(1024, 8).inputs]
  short = text.draw(128, 64, within=(1024, 8))
  assert len(short.inputs) == 64
  counts = [0] * 8
  for window in short.inputs:
    piece = BYTES.decode(window)
    inside = [piece in around for around in long]
    assert sum(inside) == 1
    counts[inside.index(True)] += 1
  assert counts == [8] * 8
  # Fewer than all are still taken from all of the long ones.
  some = text.draw(128, 8, within=(1024, 8))
  assert some.inputs == short.inputs[:8]
  for window, around in zip(some.inputs, long, strict=True):
    assert BYTES.decode(window) in around


def test_windows_are_spread_over_all_of_the_text():
  text = PlainText([numbers(10_000)], BYTES)
  begins = sorted(
    int(BYTES.decode(i)[7:14]) // 1000 for i in text.draw(64, 8).inputs
  )
  assert begins == [0, 1, 2, 3, 4, 6, 7, 8]


def test_too_little_text_says_how_much_there_is():
  text = PlainText([numbers(20)], BYTES)
  assert len(text.draw(39, 99).inputs) == 2
  with pytest.raises(
    ValueError,
    match=r'1 text: 140 tokens; wanted 141 \(EOS not counted\), for 2 sequences'
    ' of 40 and a target of 64. Give more text',
  ):
    text.draw(40, 99)
  assert len(text.draw(40, 1).inputs) == 1
  with pytest.raises(ValueError, match='wanted 1062 .* 1 sequence of 1000 '):
    text.draw(50, 4, within=(1000, 1))


@pytest.mark.parametrize(
  'arguments, message',
  [
    (dict(length=1, count=1), 'length is 1'),
    (dict(length=8, count=0), 'count is 0'),
    (dict(length=8, count=1, within=(7, 1)), 'cannot be cut out'),
    (dict(length=8, count=1, within=(16, 0)), 'count is 0'),
  ],
)
def test_impossible_sequences(arguments, message):
  with pytest.raises(ValueError, match=message):
    PlainText([numbers(100)], BYTES).draw(**arguments)


@pytest.mark.parametrize('option', ['target_tokens', 'min_count', 'max_tokens'])
def test_impossible_options(option: str):
  with pytest.raises(ValueError, match=f'{option} is 0'):
    PlainText(['x'], BYTES, False, **{option: 0})


def test_no_text():
  with pytest.raises(ValueError, match='2 texts: there is no text'):
    PlainText(['', ''], BYTES)
  with pytest.raises(TypeError, match='got one string'):
    PlainText('text', BYTES)


def test_hash_follows_what_decides_the_sequences():
  texts = [numbers(9), numbers(8)]
  hashes = [
    PlainText(texts, BYTES).hash,
    PlainText(texts[::-1], BYTES).hash,
    PlainText(['\n'.join(texts)], BYTES).hash,
    PlainText(texts, ByteVocabulary(extra_ids=7)).hash,
    PlainText(texts, BYTES, True).hash,
    PlainText(texts, BYTES, target_tokens=3).hash,
    PlainText(texts, BYTES, max_tokens=30).hash,
  ]
  assert len(set(hashes)) == len(hashes)
  assert PlainText(list(texts), ByteVocabulary()).hash == hashes[0]


# Files.


def test_files_and_strings_give_the_same(tmp_path):
  (tmp_path / 'a.txt').write_text(numbers(40))
  with gzip.open(tmp_path / 'b.jsonl.gz', 'wt') as file:
    file.write(json.dumps({'text': numbers(50)}))
  text = FileText(tmp_path, bundled())
  plain = PlainText([numbers(40), numbers(50)], bundled())
  assert text.draw(32, 5) == plain.draw(32, 5)
  assert text.hash == plain.hash
  num_tokens = sum(len(bundled().encode(numbers(n))) for n in (40, 50))
  num_tokens += len(bundled().encode('\n'))
  assert text.source == f'{tmp_path} (2 files): {num_tokens} tokens'


def test_large_files_are_read_in_part(tmp_path):
  file = tmp_path / 'a.jsonl'
  file.write_text(f'{json.dumps({"text": numbers(40)})}\nnot reached')
  text = FileText(file, BYTES, max_tokens=100)
  assert text.source == (
    f'{file} (1 file): 100 tokens, its beginning (no more than 100 are used)'
  )
  with pytest.raises(ValueError, match=r'a\.jsonl:2: not JSON'):
    FileText(file, BYTES)


def test_many_paths_are_not_all_named(tmp_path):
  paths = [tmp_path / f'{i}.txt' for i in range(8)]
  for path in paths:
    path.write_text(numbers(9))
  source = FileText(paths, BYTES).source
  assert '4.txt and 3 more (8 files): 511 tokens' in source


def test_files_that_are_not_there(tmp_path):
  with pytest.raises(FileNotFoundError, match='no such file'):
    FileText([tmp_path / 'a.txt'], BYTES)


# Generated prompts.


@pytest.mark.parametrize('vocabulary', [BYTES, bundled()])
@pytest.mark.parametrize('decoder_only', [False, True])
@pytest.mark.parametrize('length', [128, 512])
def test_generated_prompts_fill_the_length(vocabulary, decoder_only, length):
  drawn = GeneratedText(vocabulary, decoder_only).draw(length, 5)
  assert len(drawn.inputs) == len(drawn.targets) == 5
  for i, (inputs, targets) in enumerate(
    zip(drawn.inputs, drawn.targets, strict=True)
  ):
    # One unit, and in a decoder the difference between answers, may be missing.
    assert length - (90 if vocabulary is BYTES else 32) < len(inputs) <= length
    assert (inputs[-1] == EOS) != decoder_only
    assert targets[-1:] == (() if decoder_only else (EOS,))
    text = vocabulary.decode(inputs)
    question = 'What is in line' if i % 2 else 'What is the pass key?'
    assert question in text
    if decoder_only:
      assert text.split(question)[1].strip()[-1].isdigit()
    else:
      assert vocabulary.decode(targets).split(':')[-1].strip() in text


@pytest.mark.parametrize('split', ['train', 'dev'])
def test_evaluated_samples_are_never_drawn(split):
  vocabulary = bundled()
  evaluated = {
    tuple(vocabulary.encode(sample.prompt))
    for name in ('passkey_64', 'line_retrieval_tokens_64')
    for sample in generators.get_task(name).samples(vocabulary.encode, limit=99)
  }
  text = GeneratedText(vocabulary, split=split)
  drawn = {inputs[:-1] for inputs in text.draw(64, 99).inputs}
  assert len(drawn) == 99
  assert not drawn & evaluated
  # The comparison would notice them.
  same = GeneratedText(vocabulary, split='test').draw(64, 99)
  assert {inputs[:-1] for inputs in same.inputs} <= evaluated


def test_generated_prompts_are_the_same_at_every_call():
  text = GeneratedText(bundled())
  drawn = text.draw(128, 6)
  assert GeneratedText(bundled()).draw(128, 6) == drawn
  assert text.draw(128, 3, within=(512, 2)).inputs == drawn.inputs[:3]
  assert GeneratedText(bundled(), seed=1).draw(128, 6) != drawn


def test_hash_of_generated_prompts():
  hashes = [
    GeneratedText(BYTES).hash,
    GeneratedText(BYTES, seed=1).hash,
    GeneratedText(BYTES, split='train').hash,
    GeneratedText(BYTES, True).hash,
    GeneratedText(BYTES, families=('passkey',)).hash,
  ]
  hashes.append(GeneratedText(bundled()).hash)
  assert len(set(hashes)) == len(hashes)
  assert GeneratedText(ByteVocabulary()).hash == hashes[0]


@pytest.mark.parametrize(
  'options, message',
  [
    ({'families': ()}, 'no families'),
    ({'families': ('passkeys',)}, "Unknown task family 'passkeys'"),
    ({'split': 'validation'}, "split is 'validation'"),
    ({'seed': -1}, 'seed is -1'),
  ],
)
def test_wrong_options_of_generated_prompts(options, message):
  with pytest.raises(ValueError, match=message):
    GeneratedText(BYTES, **options)


@pytest.mark.parametrize('decoder_only', [False, True])
@pytest.mark.parametrize('length', [2, 8, 20, 30, 40])
def test_prompts_too_short_for_a_question(decoder_only, length):
  text = GeneratedText(BYTES, decoder_only)
  with pytest.raises(ValueError, match='passkey_.* tokens are too few'):
    text.draw(length, 2)


def test_vocabulary_without_digits():
  with pytest.raises(
    ValueError, match='passkey: .* has no , . 0 1 2 .* Calibrate on'
  ):
    GeneratedText(no_digits()).draw(128, 4)


# What a command's options ask for.


def test_text_for_options(tmp_path):
  file = tmp_path / 'a.txt'
  file.write_text(numbers(99))
  generated = text_for(BYTES, False, split='train', seed=3)
  assert generated.hash == GeneratedText(BYTES, split='train', seed=3).hash
  assert generated.source == (
    'generated passkey, line_retrieval; split train, seed 3'
  )
  hashes = {text_for(BYTES, True, data).hash for data in (str(file), [file])}
  assert hashes == {PlainText([numbers(99)], BYTES, True).hash}
  assert isinstance(text_for(BYTES, True, file), calibration_text.FileText)
