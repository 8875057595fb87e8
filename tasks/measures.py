"""What is reported of a task: each a ratio of sums over its samples.

A sample gives quantities: what `metrics` says of a prediction, or, where the
likelihood of a text is scored, its nats, tokens, bytes and words. A measure
says which of them it divides, and what is done with the ratio:

  perplexity        exp(Σ nats / Σ tokens)
  bits_per_byte     Σ nats / Σ bytes / ln 2
  word_perplexity   exp(Σ nats / Σ words)
  code_similarity   Σ code_similarity / n

Perplexities are weighted by tokens, as lm-evaluation-harness does
(`lm_eval/api/metrics.py`); YaRN's mean over windows and landmark attention's
`2.71828**loss` are other conventions. Bytes and words are those of the text,
whatever the vocabulary, so `bits_per_byte` and `word_perplexity` compare models
of different vocabularies.

Synopsis:

    quantities = text_quantities('The end.', nats=3.1, tokens=[37, 414, 5])
    MEASURES['perplexity'].estimate([quantities])
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import Any

from t5_align.tasks import intervals, metrics

Quantities = Mapping[str, float]


def _exp(x: float) -> float:
  """Return e^x; infinity where that is too large a number."""
  return math.exp(x) if x < 709 else math.inf


@dataclasses.dataclass(frozen=True)
class Measure:
  """One number of a row, from the quantities of its samples."""

  name: str
  """Its name in results."""
  numerator: str
  """The quantity that is summed."""
  denominator: str | None = None
  """The quantity to divide by; None for the number of samples."""
  transform: Callable[[float], float] | None = None
  """What is done with the ratio."""
  higher_is_better: bool = True
  """Whether a larger value is better."""
  description: str = ''
  """One line for the list of tasks."""

  def estimate(
    self,
    samples: Sequence[Quantities],
    clusters: Sequence[Any] | None = None,
  ) -> intervals.Estimate:
    """Return the value with its interval.

    Args:
      samples: what each gave.
      clusters: what each shares with others, such as its document.
    """
    return intervals.estimate(
      *self._columns(samples), clusters=clusters, transform=self.transform
    )

  def estimate_difference(
    self,
    samples: Sequence[Quantities],
    baseline: Sequence[Quantities],
    clusters: Sequence[Any] | None = None,
  ) -> intervals.Estimate:
    """Return the value less the baseline's, of the same questions in order."""
    return intervals.estimate_difference(
      self._columns(samples),
      self._columns(baseline),
      clusters=clusters,
      transform=self.transform,
    )

  def of(self, quantities: Quantities) -> float:
    """Return the value of one sample alone."""
    top = quantities[self.numerator]
    ratio = top / quantities[self.denominator] if self.denominator else top
    return self.transform(ratio) if self.transform else ratio

  def _columns(self, samples: Sequence[Quantities]) -> intervals.Samples:
    return intervals.Samples(
      [sample[self.numerator] for sample in samples],
      [sample[self.denominator] for sample in samples]
      if self.denominator
      else None,
    )


def _mean(name: str, description: str) -> Measure:
  return Measure(name, name, description=description)


# A metric's quantity against the answer as the vocabulary can write it.
IN_VOCABULARY = '_in_vocabulary'
# What the vocabulary's own writing of the answer would score.
CEILING = 'ceiling'

MEASURES = {
  measure.name: measure
  for measure in (
    _mean('passkey_match', 'first number is the key'),
    _mean('passkey_match_repaired', 'the same; 12,345 is 12345'),
    _mean('line_retrieval_match', 'last number is the value'),
    _mean('line_retrieval_match_repaired', 'the same; 2,416 is 2416'),
    _mean('topic_retrieval_match', 'prediction contains the topic'),
    _mean('value_match', 'prediction contains the value'),
    _mean('best_subspan_em', 'prediction contains an answer'),
    _mean('best_subspan_em_repaired', 'the same, as whole words'),
    _mean('code_similarity', 'edit similarity of the first line of code'),
    _mean('code_similarity_repaired', 'the same, indentation left out'),
    _mean(
      f'code_similarity{IN_VOCABULARY}',
      'edit similarity to the line as the vocabulary writes it',
    ),
    _mean('code_exact_match', 'first line of code has the words of the line'),
    _mean('exact_match', 'prediction is the answer'),
    _mean(CEILING, "the metric of the vocabulary's own writing of the answer"),
    Measure(
      'perplexity',
      'nats',
      'tokens',
      _exp,
      higher_is_better=False,
      description='exp of the mean loss of a token',
    ),
    Measure(
      'nats_per_token',
      'nats',
      'tokens',
      higher_is_better=False,
      description='mean loss of a token',
    ),
    Measure(
      'bits_per_byte',
      'bits',
      'bytes',
      higher_is_better=False,
      description='loss in bits over the bytes of the text',
    ),
    Measure(
      'word_perplexity',
      'nats',
      'words',
      _exp,
      higher_is_better=False,
      description='exp of the mean loss of a word',
    ),
    Measure(
      'unknown_share',
      'unknown_tokens',
      'tokens',
      higher_is_better=False,
      description='share of tokens that the vocabulary lost',
    ),
  )
}


def text_quantities(
  text: str, nats: float, tokens: Sequence[int], unknown_id: int = 2
) -> dict[str, float]:
  """Return the quantities of a text whose likelihood was scored.

  Args:
    text: as it is in its document.
    nats: negative log-likelihood of its tokens, summed.
    tokens: its ids.
    unknown_id: what stands for characters that the vocabulary has not.
  """
  return {
    'nats': nats,
    'bits': nats / math.log(2),
    'tokens': len(tokens),
    'bytes': len(text.encode()),
    # White space around a text that was cut out of another makes no words.
    'words': metrics.count_words(text.strip()),
    'unknown_tokens': sum(token == unknown_id for token in tokens),
  }


def answer_quantities(
  measures: Sequence[str],
  prediction: str,
  answers: Sequence[str],
  readable_answers: Sequence[str],
) -> dict[str, float]:
  """Return the quantities of a generated prediction, for some measures.

  Args:
    measures: names.
    prediction: what the model wrote.
    answers: any of them is right.
    readable_answers: the same as the vocabulary can write them.
  """
  main = measures[0]
  quantities = {}
  for name in measures:
    if name == CEILING:
      pairs = [(readable, answers) for readable in readable_answers]
      quantities[name] = max(_best(main, *pair) for pair in pairs)
    elif name.endswith(IN_VOCABULARY):
      metric = name.removesuffix(IN_VOCABULARY)
      quantities[name] = _best(metric, prediction, readable_answers)
    else:
      quantities[name] = _best(name, prediction, answers)
  return quantities


def _best(metric: str, prediction: str, answers: Sequence[str]) -> float:
  score = getattr(metrics, metric)
  return max(score(prediction, answer) for answer in answers)
