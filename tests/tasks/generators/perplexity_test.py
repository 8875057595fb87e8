"""Perplexity: fixed targets, prompts that grow, documents from every place."""

import gzip
import itertools
import json
import pathlib
import random
import re

from backports import zstd
import hypothesis
from hypothesis import strategies
import pytest

from t5_align import bundled
from t5_align import vocabulary as vocabulary_lib
from t5_align.tasks import generators
from t5_align.tasks.data import sources, tfds_text
from t5_align.tasks.data.documents import Document
from t5_align.tasks.generators import continuations, perplexity, task

COMMON = 400
BUNDLED = pathlib.Path(bundled.__file__).parent


def encode(text):
  """Three characters of a word are a token, as with SentencePiece."""
  return [len(piece) for piece in re.findall(r'\S{1,3}', text)]


def make_text(num_words, seed=0, longest=12):
  rng = random.Random(seed)
  words = (
    rng.choice(' \n') * rng.randint(1, 2) + 'x' * rng.randint(1, longest)
    for _ in range(num_words)
  )
  return ''.join(words)


def ask(tokens, template=None, family='perplexity_files', **options):
  definition = task.get_family(family)
  name = f'{family}_{tokens}'
  wording = definition.template(template)
  return task.Request(name, {'tokens': tokens}, encode, wording, **options)


def read(documents, tokens, **options):
  return list(continuations.read_samples(documents, ask(tokens, **options)))


def read_data(data, tokens=64, family='perplexity_files', **options):
  found = generators.get_task(f'{family}_{tokens}')
  return list(found.samples(encode, data=data, **options))


def write_rows(path, *rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  content = '\n'.join(map(json.dumps, rows)).encode()
  pack = {'.gz': gzip.compress, '.zst': zstd.compress}
  path.write_bytes(pack.get(path.suffix, bytes)(content))
  return path


@pytest.fixture(autouse=True)
def small_context(monkeypatch):
  monkeypatch.setattr(continuations, 'COMMON_CONTEXT_TOKENS', COMMON)


def test_only_the_prompt_grows():
  document = Document('a.txt:7', make_text(3000))
  by_size = [read([document], size) for size in (64, 128, 300, COMMON)]
  for samples in zip(*by_size):
    assert len({sample.target for sample in samples}) == 1
    prompts = [sample.prompt for sample in samples]
    for short, long in zip(prompts, prompts[1:]):
      assert long.endswith(short) and len(long) > len(short)
    assert samples[0].prompt + samples[0].target in document.text
  assert {len(samples) for samples in by_size} == {4}


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
  num_words=strategies.integers(800, 2500),
  seed=strategies.integers(0, 1000),
  size=strategies.integers(30, 900),
  longest=strategies.sampled_from([1, 8, 60]),
)
def test_places_and_lengths(num_words, seed, size, longest):
  document = Document('d', make_text(num_words, seed, longest))
  text = document.text
  needed = max(size, COMMON) + continuations.TARGET_TOKENS
  if len(encode(text)) < needed:
    return
  samples = read([document], size)
  assert 1 <= len(samples) <= continuations.TARGETS_PER_DOCUMENT
  end = 0
  for sample in samples:
    start = int(sample.id.rsplit('-', 1)[1])
    assert start >= end
    assert len(encode(text[:start])) >= max(size, COMMON)
    end = start + len(sample.target)
    assert text[start:end] == sample.target
    assert text[:start].endswith(sample.prompt)
    assert end == len(text) or text[end].isspace()
    assert 1 <= len(encode(sample.target)) <= continuations.TARGET_TOKENS
    # One word more would not fit.
    before = text[: start - len(sample.prompt)]
    word = re.search(r'\s*\S+$', before)
    assert len(encode(sample.prompt)) + 1 <= size
    assert word and len(encode(word[0] + sample.prompt)) + 1 > size


def test_targets_are_spread_over_the_document():
  text = make_text(8000)
  starts = [
    int(s.id.rsplit('-', 1)[1]) for s in read([Document('d', text)], 64)
  ]
  gaps = [b - a for a, b in zip(starts, starts[1:])]
  assert len(starts) == 4
  assert max(gaps) < 1.1 * min(gaps)
  assert starts[-1] > 0.7 * len(text)  # three quarters of the way


def test_a_document_is_a_cluster_and_ids_differ():
  documents = [Document(f'a:{i}', make_text(2000, i)) for i in range(3)]
  samples = read(documents, 64)
  assert [s.cluster for s in samples] == [f'a:{i // 4}' for i in range(12)]
  assert len({s.id for s in samples}) == 12
  assert samples[0].id.startswith('perplexity_files_64-a:0-')


def test_documents_are_read_no_further_than_needed():
  def documents():
    yield Document('a', make_text(2000))
    raise AssertionError('read on')

  samples = continuations.read_samples(documents(), ask(64))
  assert [next(samples).cluster for _ in range(4)] == ['a'] * 4


def test_short_documents_are_left_out():
  short, long = make_text(100), make_text(2000)
  documents = [Document('a', short), Document('b', long), Document('c', short)]
  assert {sample.cluster for sample in read(documents, 64)} == {'b'}


def test_larger_sizes_need_more():
  documents = [Document('a', make_text(600)), Document('b', make_text(2000))]
  assert {s.cluster for s in read(documents, COMMON)} == {'a', 'b'}
  assert {s.cluster for s in read(documents, 3000)} == {'b'}


def test_no_document_is_long_enough():
  documents = [Document('a', ' xy' * 90), Document('b', ' xyz' * 40)]
  with pytest.raises(
    ValueError,
    match=r'files_64: none of 2 documents .* has 90 tokens .* wanted 528',
  ):
    read(documents, 64)
  with pytest.raises(ValueError, match='none of 0 documents'):
    read([], 64)


def test_the_wording_around_counts(tmp_path):
  file = tmp_path / 'mine.json'
  file.write_text('{"prompt": "What comes after this? {context}"}')
  document = Document('a', make_text(2000))
  plain, worded = (read([document], 64, template=t) for t in (None, file))
  assert [s.target for s in plain] == [s.target for s in worded]
  for sample in worded:
    assert sample.prompt.startswith('What comes after this? ')
    assert 58 <= len(encode(sample.prompt)) + 1 <= 64


def test_no_place_beside_a_huge_word():
  huge = 'y' * 100_000
  text = f'{make_text(1000)} {huge} {make_text(1000)}'
  samples = read([Document('a', text)], 64)
  assert samples
  assert all('y' not in s.target + s.prompt for s in samples)


def test_a_size_too_small():
  with pytest.raises(ValueError, match='1 tokens are too few: not one word'):
    read([Document('a', make_text(2000))], 1)


@pytest.mark.parametrize('name', ['t.jsonl', 't.jsonl.gz', 't.jsonl.zst'])
def test_subset_of_the_pile(tmp_path, name):
  def row(subset, seed):
    text = make_text(2000, seed)
    return {'text': text, 'meta': {'pile_set_name': subset}}

  rows = [row('ArXiv', 1), row('Github', 2), row('ArXiv', 3)]
  path = write_rows(tmp_path / name, *rows)
  samples = read_data(str(path), family='perplexity_arxiv')
  assert {s.cluster for s in samples} == {f'{name}:1', f'{name}:3'}
  samples = read_data(path, family='perplexity_github', limit=3)
  assert [s.cluster for s in samples] == [f'{name}:2'] * 3
  with pytest.raises(
    ValueError,
    match='none of 0 .* Of OpenWebText2; other subsets there: ArXiv, Github',
  ):
    read_data(path, family='perplexity_openwebtext2')


def test_subset_in_parquet_and_without_a_name(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  rows = [
    {'text': make_text(2000, i), 'meta': {'pile_set_name': name}}
    for i, name in enumerate(['Github', 'ArXiv'])
  ]
  parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / 'a.parquet')
  samples = read_data(tmp_path / 'a.parquet', family='perplexity_arxiv')
  assert {s.cluster for s in samples} == {'a.parquet:2'}
  path = write_rows(tmp_path / 'plain.jsonl', {'text': rows[0]['text']})
  assert len(read_data(path, family='perplexity_arxiv')) == 4


def test_pile_in_a_folder_as_published(tmp_path, monkeypatch):
  row = {'text': make_text(2000), 'meta': {'pile_set_name': 'ArXiv'}}
  write_rows(tmp_path / 'val.jsonl', {'text': 'never read', 'meta': 5})
  write_rows(tmp_path / 'test.jsonl.zst', row)
  assert len(read_data(tmp_path, family='perplexity_arxiv')) == 4
  monkeypatch.setenv('T5_ALIGN_DATA', str(tmp_path))
  assert len(read_data(None, family='perplexity_arxiv')) == 4
  monkeypatch.setenv('T5_ALIGN_DATA', str(tmp_path / 'none'))
  with pytest.raises(
    sources.DataMissingError, match=r'No test\.jsonl of The Pile in .*hf downl'
  ):
    read_data(None, family='perplexity_arxiv')


def test_files_of_a_folder_in_spread_order(tmp_path):
  for i in range(4):
    path = tmp_path / 'in' / f'{i}.txt'
    path.parent.mkdir(exist_ok=True)
    path.write_text(make_text(2000, i))
  (tmp_path / 'top.md').write_text(make_text(2000, 9))
  samples = read_data(tmp_path)
  clusters = list(dict.fromkeys(s.cluster for s in samples))
  assert clusters == ['in/0.txt', 'in/2.txt', 'in/1.txt', 'in/3.txt', 'top.md']
  assert read_data(tmp_path, limit=9) == samples[:9]
  assert read_data(tmp_path / 'top.md')[0].cluster == 'top.md'


def test_user_files_have_one_split(tmp_path):
  (tmp_path / 'a.txt').write_text(make_text(2000))
  with pytest.raises(ValueError, match="files have no split 'dev'"):
    read_data(tmp_path, split='dev')


@pytest.mark.slow
def test_library_is_always_there(monkeypatch):
  monkeypatch.undo()  # the real context
  vocabulary = vocabulary_lib.load_vocabulary(BUNDLED)
  found = generators.get_task('perplexity_files_512')
  for split in ('dev', 'test'):
    samples = list(found.samples(vocabulary.encode, split=split, limit=40))
    assert len(samples) == 40
    assert len({s.cluster for s in samples}) >= 5
    lengths = [len(vocabulary.encode(s.prompt)) + 1 for s in samples]
    assert max(lengths) <= 512
    assert sum(lengths) / 40 > 500


def test_splits_of_the_library_are_apart():
  dev, test = (set(perplexity._library_files(s)) for s in ('dev', 'test'))
  assert not dev & test
  assert 0.15 < len(dev) / len(dev | test) < 0.35
  assert not any('site-packages' in f or '/test/' in f for f in dev | test)


def test_books_from_files(tmp_path):
  path = write_rows(tmp_path / 'test.jsonl', {'text': make_text(2000)})
  for data in (path, tmp_path):
    assert len(read_data(data, family='perplexity_pg19')) == 4


def test_books_are_missing(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  with pytest.raises(
    sources.DataMissingError, match=r'No pg19/0\.1\.1 .* tfds build pg19'
  ):
    read_data(None, family='perplexity_pg19')
  (tmp_path / 'a').mkdir()
  with pytest.raises(ValueError, match='a folder without text files'):
    read_data(tmp_path / 'a', family='perplexity_pg19')


@pytest.mark.slow
def test_books_as_tfds_prepared_them(tmp_path, monkeypatch):
  import tensorflow as tf
  import tensorflow_datasets as tfds

  texts = [make_text(2000, i) for i in range(3)]
  folder = tmp_path / 'pg19' / '0.1.1'
  folder.mkdir(parents=True)
  features = tfds.features.FeaturesDict({'book_text': tfds.features.Text()})
  file = folder / 'pg19-test.tfrecord-00000-of-00001'
  with tf.io.TFRecordWriter(str(file)) as writer:
    for text in texts:
      writer.write(features.serialize_example({'book_text': text}))
  tfds.folder_dataset.write_metadata(
    data_dir=folder,
    features=features,
    filename_template='{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
  )
  samples = read_data(tmp_path, family='perplexity_pg19')
  clusters = [f'pg19/0.1.1/test:{i}' for i in (1, 2, 3)]
  assert list(dict.fromkeys(s.cluster for s in samples)) == clusters
  assert any(samples[0].target in text for text in texts)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  assert tfds_text.default_folder() == str(tmp_path)
  assert read_data(None, family='perplexity_pg19') == samples


def test_a_stream_without_end_has_a_default_limit(monkeypatch):
  documents = (Document(f'{i}', 'a word ' * 900) for i in itertools.count())
  monkeypatch.setattr(perplexity, '_named_within', lambda files: documents)

  samples = list(generators.get_task('perplexity_files_128').samples(encode))
  assert len(samples) == 200 and len({s.cluster for s in samples}) == 50
