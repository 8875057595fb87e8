"""Texts that TensorFlow Datasets has prepared.

They are read as they lie on disk, in the order they lie in: nothing is
downloaded or prepared here, and no code of a dataset is run.

Synopsis:

    for document in read_texts('pg19/0.1.1', 'book_text', 'test', None):
      document.name, document.text     # 'pg19/0.1.1/test:17'
"""

from collections.abc import Iterator
import contextlib
import os
from typing import Any

from t5_align.tasks.data import sources, streams
from t5_align.tasks.data.documents import Document


def default_folder() -> str:
  """Return where TFDS prepares datasets."""
  folder = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return os.path.expanduser(folder)


def is_prepared(dataset: str, folder: str) -> bool:
  """Whether a data folder of TFDS has 'NAME/VERSION'."""
  if folder.startswith(sources.HUB):
    return False
  return streams.is_file(f'{folder}/{dataset}/dataset_info.json')


def read_texts(
  dataset: str, field: str, split: str, folder: str | None
) -> Iterator[Document]:
  """Yield the texts of one split that are not empty.

  Args:
    dataset: 'NAME/VERSION'.
    field: that holds the text.
    split: of the dataset.
    folder: the data folder of TFDS; None: `default_folder()`.

  Raises:
    DataMissingError: it isn't prepared there; says how to.
    ValueError: a text that is not UTF-8, with its number.
  """
  folder = folder or default_folder()
  if not is_prepared(dataset, folder):
    raise sources.DataMissingError(
      f'No {dataset} in {folder}. Prepare it: tfds build'
      f' {dataset.split("/")[0]} --data_dir {folder}'
    )
  # Takes seconds, and most data is no dataset of TFDS.
  import tensorflow as tf
  import tensorflow_datasets as tfds

  # TensorFlow would take all of a GPU's memory; it refuses once it runs.
  with contextlib.suppress(RuntimeError):
    tf.config.set_visible_devices([], 'GPU')
  builder: Any = tfds.builder_from_directory(f'{folder}/{dataset}')
  examples = builder.as_dataset(split=split, shuffle_files=False)
  for number, example in enumerate(examples.as_numpy_iterator(), start=1):
    name = f'{dataset}/{split}:{number}'
    try:
      text = example[field].decode()
    except UnicodeDecodeError as error:
      raise ValueError(
        f'{folder}/{name}: byte {error.start} of {field} is not UTF-8:'
        f' {error.reason}.'
      ) from None
    if text.strip():
      yield Document(name, text)
