"""Tasks made ready while something else goes on."""

import subprocess
import sys
import threading
import types

import pytest

from t5_align.preparation import Preparation, StoppedError
from t5_align.prompts import Settings
from t5_align.tasks import generators

_LEAVE = """
import sys, time, types
from t5_align import preparation, prompts, vocabulary
from t5_align.bundled import BUNDLED_MODEL
from t5_align.tasks import generators

model = types.SimpleNamespace(
  vocabulary=vocabulary.load_vocabulary(BUNDLED_MODEL),
  checkpoint=types.SimpleNamespace(decoder_only=False),
)
task = generators.get_task('line_retrieval_tokens_16384')
preparation.Preparation([task], model, prompts.Settings())
time.sleep(0.2)
sys.exit(2)
"""


@pytest.mark.slow
def test_a_program_may_end_while_tasks_are_made_ready():
  # A thread within SentencePiece as Python ended would abort the process, if
  # not each time.
  for _ in range(3):
    done = subprocess.run(
      [sys.executable, '-c', _LEAVE], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (2, '')


def test_stopping_ends_what_is_being_made():
  begun, free = threading.Event(), threading.Event()
  num_threads = threading.active_count()

  class Vocabulary:
    eos_id = 1

    def encode(self, text):
      begun.set()
      free.wait(10)
      return [3] * len(text)

  model = types.SimpleNamespace(vocabulary=Vocabulary())
  tasks = [generators.get_task(f'passkey_{n}') for n in (512, 1024)]
  preparation = Preparation(tasks, model, Settings())
  assert begun.wait(10)
  threading.Timer(0.1, free.set).start()
  preparation.stop()
  assert threading.active_count() == num_threads
  with pytest.raises(StoppedError):
    preparation.check()


def test_the_thread_itself_may_collect_the_garbage():
  """As it does where a failed run left its tasks in a cycle of references."""
  stopped = []

  class Vocabulary:
    eos_id = 1

    def encode(self, text):
      begun.wait(10)
      if not stopped:
        stopped.append(None)
        preparation.stop()  # what the collection of garbage calls
        stopped.append('no error')
      return [3] * len(text)

  begun = threading.Event()
  model = types.SimpleNamespace(vocabulary=Vocabulary())
  task = generators.get_task('passkey_512')
  preparation = Preparation([task], model, Settings())
  begun.set()
  with pytest.raises(StoppedError):
    next(iter(preparation))
  assert stopped == [None, 'no error']
