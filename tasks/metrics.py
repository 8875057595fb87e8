"""How predictions are scored: one function a metric, one sample at a time.

Each takes a prediction and one right answer and returns 0.0 to 1.0, exactly as
the benchmark's authors score it, with whatever their code gets wrong: a name
says which benchmark, and its docstring what is wrong. Where something is, a
function of the same name and `_repaired` says what was meant; results compare
with published ones by the first, and are to be believed by the second.

Synopsis:

    passkey_match(' 12,345.', '12345')            # 0.0: a number is 12
    passkey_match_repaired(' 12,345.', '12345')   # 1.0
    code_similarity('return self.y', '  return self.x')
"""

from collections.abc import Iterator, Sequence
import re
import string
import unicodedata

# Thousands in groups of three, or a run of digits.
_NUMBER = re.compile(r'\d{1,3}(?:,\d{3})+(?!,?\d)|\d+')
_LINE_NUMBER = re.compile(rf'\blines?\s+(?:{_NUMBER.pattern})', re.IGNORECASE)
_ARTICLE = re.compile(r'\b(a|an|the)\b')
_NO_PUNCTUATION = str.maketrans('', '', string.punctuation)


def _same_number(digits: str, wanted: str) -> float:
  """Compare two strings of digits as integers: leading zeros don't count.

  Digits of any script and any number of them, where `int` stops at 4,300.
  """
  ours, theirs = (
    ''.join(str(int(d)) for d in text if d != ',').lstrip('0')
    for text in (digits, wanted)
  )
  return float(ours == theirs)


def passkey_match(prediction: str, key: str) -> float:
  """Score 1 if the first number in the prediction is the key.

  As published (landmark-attention, `llama/run_test.py`): a number is a run of
  digits, so '012345' is right for 12345, and '1 2345' and '12,345' are wrong.
  """
  found = re.search(r'\d+', prediction)
  return _same_number(found[0], key) if found else 0.0


def passkey_match_repaired(prediction: str, key: str) -> float:
  """Score 1 if the first number is the key, where '12,345' is one number."""
  found = _NUMBER.search(prediction)
  return _same_number(found[0], key) if found else 0.0


def line_retrieval_match(prediction: str, value: str) -> float:
  """Score 1 if the last number in the prediction is the value.

  As published (LongChat, `longeval/utils.py`): a number is a run of digits, so
  '2,416' is 416, and in '2416 is in line torpid-kid (line 7)' it is 7.
  """
  found = re.findall(r'\d+', prediction)
  return _same_number(found[-1], value) if found else 0.0


def line_retrieval_match_repaired(prediction: str, value: str) -> float:
  """Score 1 if the last number that does not count a line is the value.

  '2,416' is one number, and 'line 7' is passed over unless there is no other.
  """
  found = _NUMBER.findall(_LINE_NUMBER.sub(' ', prediction))
  found = found or _NUMBER.findall(prediction)
  return _same_number(found[-1], value) if found else 0.0


def topic_retrieval_match(prediction: str, topic: str) -> float:
  """Score 1 if the prediction contains the topic, in any case.

  Stands in for the published score of LongEval, which asks gpt-3.5-turbo
  whether both are the same topic (LongChat, `longeval/auto_topic_eval.py`), and
  so cannot be repeated. A paraphrase is right there and wrong here. The judge
  sees only what stands before the first comma of a prediction:
  "['Sure, the benefits of tea']" reaches it as "'Su".
  """
  return float(topic.lower() in prediction.lower())


def value_match(prediction: str, value: str) -> float:
  """Score 1 if the prediction contains the value, in any case.

  As published for key-value retrieval (lost-in-the-middle,
  `scripts/evaluate_kv_responses.py`): the whole prediction, over many lines.
  """
  return float(value.lower() in prediction.lower())


def best_subspan_em(prediction: str, answers: str | Sequence[str]) -> float:
  """Score 1 if the prediction contains an answer, both normalised.

  As published (lost-in-the-middle, `src/lost_in_the_middle/metrics.py`): lower
  case, without ASCII punctuation and articles, white space collapsed. Part of a
  word will do, so '14' is right for 4; an answer of which nothing is left, such
  as 'the', is always right. The published pipeline cuts the prediction at its
  first line break before this.

  Args:
    prediction: what the model wrote.
    answers: the right one, or several, any of which is right.
  """
  text = _normalise(prediction)
  return float(any(_normalise(answer) in text for answer in _each(answers)))


def _each(answers: str | Sequence[str]) -> Sequence[str]:
  return (answers,) if isinstance(answers, str) else answers


def _normalise(text: str) -> str:
  """Return text as SQuAD's evaluation script compares it."""
  text = text.lower().translate(_NO_PUNCTUATION)
  return ' '.join(_ARTICLE.sub(' ', text).split())


def best_subspan_em_repaired(
  prediction: str, answers: str | Sequence[str]
) -> float:
  """Score 1 if the words of an answer stand in the prediction, in a row.

  Words are whole: '14' is wrong for 4. Punctuation of any script may end a word
  or stand inside it ('May 18,2018', 'U.S.A.'), and characters that Unicode
  holds to be the same are (NFKC). Articles count where an answer has nothing
  else; an answer without a word is never right.

  Args:
    prediction: what the model wrote.
    answers: the right one, or several, any of which is right.
  """
  return float(
    any(
      ours and f' {ours} ' in f' {theirs} '
      for answer in _each(answers)
      for ours, theirs in _wordings(answer, prediction)
    )
  )


def _wordings(answer: str, prediction: str) -> Iterator[tuple[str, str]]:
  """Yield both texts as words in each way that may find one in the other."""
  folded = [
    unicodedata.normalize('NFKC', text).casefold()
    for text in (answer, prediction)
  ]
  for separator in ('', ' '):
    ours, theirs = (
      ' '.join(re.sub(r'[^\w\s]|_', separator, text).split()) for text in folded
    )
    without = [' '.join(_ARTICLE.sub(' ', t).split()) for t in (ours, theirs)]
    yield (without[0], without[1]) if without[0] else (ours, theirs)


def edit_similarity(prediction: str, reference: str) -> float:
  """Return 2M/T in whole hundredths, M characters in common of T in all.

  What `fuzzywuzzy.fuzz.ratio`, which LongBench and RepoBench call, gives with
  python-Levenshtein installed: M is the longest common subsequence. Without it
  M is that of Python's difflib, which is smaller for lines unlike each other.
  """
  # Nothing but code is compared with it.
  from rapidfuzz import fuzz

  return round(fuzz.ratio(prediction, reference)) / 100


def code_similarity(prediction: str, line: str) -> float:
  """Return the edit similarity of the first line of code and the right one.

  As published (LongBench, `metrics.py`, `code_sim_score`). The first line of
  code is the first with no '`', '#' or '//' anywhere, so a line with a comment
  behind it, or a Python division, is passed over; one of white space alone is
  taken. The indentation of the right line counts, which T5's vocabulary cannot
  write, nor can it end a line.
  """
  return edit_similarity(_published_line(prediction), line)


def _published_line(prediction: str) -> str:
  """Return the line that LongBench takes for the first line of code."""
  for line in prediction.lstrip('\n').split('\n'):
    if not any(mark in line for mark in ('`', '#', '//')):
      return line
  return ''


def code_similarity_repaired(prediction: str, line: str) -> float:
  """Return 2M/T of the first line of code and the right one, not rounded.

  White space around both is left out. Blank lines, fences and lines that are
  nothing but a comment are passed over; if the right line is itself a comment,
  comments are not.
  """
  # Nothing but code is compared with it.
  from rapidfuzz import fuzz

  line = line.strip()
  passed_over = ('```',) if line.startswith(('#', '//')) else ('```', '#', '//')
  lines = (written.strip() for written in prediction.split('\n'))
  code = (w for w in lines if w and not w.startswith(passed_over))
  return fuzz.ratio(next(code, ''), line) / 100


def code_exact_match(prediction: str, line: str) -> float:
  """Score 1 if the first line of code has the words of the right line.

  Words as RepoBench compares them (`exact_match_score`): split at white space,
  which does not count. The first line of code is that of `code_similarity`;
  LongBench has no exact match of its own.
  """
  return float(_published_line(prediction).split() == line.split())


def exact_match(prediction: str, reference: str) -> float:
  """Score 1 if both are the same but for white space around them."""
  return float(prediction.strip() == reference.strip())


def count_words(text: str) -> int:
  r"""Return the words of a text as lm-evaluation-harness counts them.

  As published (`lm_eval/api/task.py`): white space at either end adds one, and
  an empty text has one.
  """
  return len(re.split(r'\s+', text))
