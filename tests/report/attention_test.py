"""What attention was and is, from the files of calibrations on the way."""

from matplotlib import image
import pytest

from t5_align import report, results, temperature
from t5_align.report import attention
from t5_align.temperature import Temperatures
from tests.report.made_up_results import PASSKEYS, make_results
from tests.report.page_parser import Page

LONG = 'maximum_probability_closed_form'


def make_point(length, alignment, probability, entropy, tau=1.0, **fields):
  return {
    'site': 'encoder',
    'length': length,
    'keys': float(length),
    'alignment': alignment,
    'maximum_probability': probability,
    'entropy_nats': entropy,
    'temperature': tau,
  } | fields


def make_points(name):
  return [
    make_point(128, 'none', 0.41234, 2.0),
    make_point(256, 'none', 0.31, 2.6),
    make_point(256, name, 0.415, 2.05, 0.8512),
    make_point(1024, 'none', 0.0312, 3.9),
    make_point(1024, name, 0.409, 2.11, 0.61),
  ]


def keep(folder, name, **fields):
  """Write what a calibration on the way leaves."""
  path = folder / 'alignments' / f'{name}.json'
  path.parent.mkdir(exist_ok=True)
  temperature.save(
    path, Temperatures(), **{'training_length': 128, 'solutions': []} | fields
  )
  return path


def show(folder, capsys):
  """Return the lines that `show` prints as words, and its page."""
  report.show(folder)
  out = capsys.readouterr().out
  tables = out.partition('1 x cpu')[0]
  assert max(map(len, tables.splitlines())) <= 80
  page = Page((folder / 'report.html').read_text())
  return [line.split() for line in out.splitlines()], page


def test_table_picture_and_section(tmp_path, capsys):
  make_results(tmp_path, PASSKEYS, ('none', 'entropy'))
  keep(tmp_path, 'entropy', attention_statistics=make_points('entropy'))
  printed, page = show(tmp_path, capsys)
  heading = 'attention (encoder), mean over layers and heads'
  assert heading.split() in printed and heading in page.text
  for line in (
    ['128', 'none', '0.412', '2.00', '1.000'],
    ['256', 'none', '0.310', '2.60', '1.000'],
    ['entropy', '0.415', '2.05', '0.851'],
    ['1,024', 'none', '0.031', '3.90', '1.000'],
    ['entropy', '0.409', '2.11', '0.610'],
  ):
    assert line in printed and ''.join(line) in page.text
  assert 'gets flatter as the input gets longer' in page.text
  path = tmp_path / 'attention.png'
  assert str(path) in [''.join(words) for words in printed]
  assert len(page.sources) == 3
  pixels = image.imread(path)[..., :3]
  assert pixels.min() < 0.5
  assert (pixels[:, [0, -1]] == 1).all()  # nothing runs over the edges


def test_several_alignments_share_what_is_without(tmp_path, capsys):
  names = ('none', 'temperature=0.8', 'entropy', LONG)
  _, rows = make_results(tmp_path, PASSKEYS, names)
  for name in ('entropy', LONG, 'left_out'):
    keep(tmp_path, name, attention_statistics=make_points(name))
  points = attention.read_attention(tmp_path, rows)
  at_longest = [p.alignment for p in points if p.length == 1024]
  assert at_longest == ['none', 'entropy', LONG]
  printed, page = show(tmp_path, capsys)
  assert [LONG, '0.409', '2.11', '0.610'] in printed
  assert page.text.count('gets flatter') == 1


def test_rows_of_a_decoder_stand_by_their_keys(tmp_path, capsys):
  make_results(tmp_path, PASSKEYS, ('entropy',))
  places = [
    (128, 'none', 120.0),
    *((512, n, keys) for n in ('none', 'entropy') for keys in (64.5, 384.0)),
  ]
  points = [
    make_point(length, name, 0.5, 2.0, site='decoder', keys=keys)
    for length, name, keys in places
  ]
  keep(tmp_path, 'entropy', attention_statistics=points)
  printed, _ = show(tmp_path, capsys)
  header = ['keys', 'alignment', 'probability', 'in', 'nats', 'temperature']
  start = printed.index(header)
  firsts = [words[0] for words in printed[start:] if len(words) in (4, 5)]
  assert firsts[:5] == ['64', 'entropy', '120', '384', 'entropy']


@pytest.mark.parametrize('fields', [None, {}, {'attention': 'reference'}])
def test_nothing_is_shown_where_nothing_was_kept(tmp_path, capsys, fields):
  """Nor where a file says how its model computes attention: the oracle's."""
  make_results(tmp_path, PASSKEYS, ('none', 'entropy'))
  if fields is not None:
    keep(tmp_path, 'entropy', **fields)
  printed, page = show(tmp_path, capsys)
  assert not any(words[:1] == ['attention'] for words in printed)
  assert 'Attention' not in page.text and len(page.sources) == 2
  assert not (tmp_path / 'attention.png').exists()


@pytest.mark.parametrize('value', [[{'site': 'encoder'}], 3])
def test_a_file_of_something_else_is_named(tmp_path, value):
  _, rows = make_results(tmp_path, PASSKEYS, ('none', 'entropy'))
  path = keep(tmp_path, 'entropy', attention_statistics=value)
  with pytest.raises(results.ResultsError, match=f'{path} is not what'):
    attention.read_attention(tmp_path, rows)
