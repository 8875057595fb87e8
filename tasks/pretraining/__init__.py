"""What a model is trained on, in NumPy alone: text and generated tasks."""

from t5_align.tasks.pretraining.mixture import Example as Example
from t5_align.tasks.pretraining.mixture import Examples as Examples
from t5_align.tasks.pretraining.mixture import Mixture as Mixture
from t5_align.tasks.pretraining.mixture import RetrievalTask as RetrievalTask
from t5_align.tasks.pretraining.mixture import TextTask as TextTask
from t5_align.tasks.pretraining.objectives import (
  LanguageModel as LanguageModel,
)
from t5_align.tasks.pretraining.objectives import PrefixLM as PrefixLM
from t5_align.tasks.pretraining.objectives import (
  SpanCorruption as SpanCorruption,
)
from t5_align.tasks.pretraining.token_stream import TokenStream as TokenStream
