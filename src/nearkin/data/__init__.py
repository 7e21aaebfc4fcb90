"""Data sets by name, and what batches are drawn from them.

>>> load("mnist-5k").train.inputs.shape
torch.Size([4000, 1, 28, 28])
"""

from nearkin.data.archives import unpack as unpack
from nearkin.data.check import check as check
from nearkin.data.samplers import Batches as Batches
from nearkin.data.samplers import structure as structure
from nearkin.data.sets.catalogue import load as load
from nearkin.data.sources import default_root as default_root
from nearkin.data.sources import where as where
from nearkin.data.splits import Split as Split
from nearkin.data.splits import Splits as Splits
from nearkin.data.splits import hold_out as hold_out
from nearkin.data.splits import subset as subset
from nearkin.registry import AUGMENTS as AUGMENTS
from nearkin.registry import DATASETS as DATASETS
from nearkin.registry import SAMPLERS as SAMPLERS
