"""Generated tasks, in NumPy alone: importable without seqio and TensorFlow."""

from t5_align.tasks.generators.haystack import by_words as by_words
from t5_align.tasks.generators.task import Sample as Sample
from t5_align.tasks.generators.task import TaskDefinition as TaskDefinition
from t5_align.tasks.generators.task import get_family as get_family
from t5_align.tasks.generators.task import get_task as get_task
from t5_align.tasks.generators.task import list_families as list_families
from t5_align.tasks.generators.task import list_tasks as list_tasks
from t5_align.tasks.generators.task import select_tasks as select_tasks
from t5_align.tasks.generators.template import Template as Template
from t5_align.tasks.generators.training import (
  training_sample as training_sample,
)
