"""Several processes for T5X's eval and infer, which start in one only.

T5X parses its gin files before it touches a device, and imports what they
import: importing this module joins the processes that the environment names, as
`processes.start` does for our own commands. T5X then splits the samples by
process, and the first one writes. Its train has flags for this of its own.

Synopsis, in a gin file:

    from t5_align import t5x_processes
"""

from t5_align import processes

processes.start()
