"""T5 models that read far beyond their training length, in JAX.

Dimensions, in types, einsums and comments:

    B batch         T query tokens   S key tokens   N heads     H head dim
    D model width   F MLP width      V vocabulary   K buckets   L layers

Lower-case t and s are a block of T and S; W is the width of a band of biases.
"""

__version__ = '0.1.0'

from t5_align.checkpoints import CheckpointError as CheckpointError
from t5_align.inference import Sampling as Sampling
from t5_align.kernels import attend as attend
from t5_align.mask import AttentionMask as AttentionMask
from t5_align.model import Model as Model
from t5_align.model import load_model as load_model
from t5_align.network import DecoderOnlyTransformer as DecoderOnlyTransformer
from t5_align.network import T5Config as T5Config
from t5_align.network import Transformer as Transformer
from t5_align.presets import PRESETS as PRESETS
from t5_align.temperature import Law as Law
from t5_align.temperature import Temperatures as Temperatures
