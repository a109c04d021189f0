"""From a recording to its sources, or their directions, in one call: transform, model, inference, filter, sound."""

from vbss.separation.analysis import _analysed as _analysed
from vbss.separation.long import separate_long as separate_long
from vbss.separation.many import Outcome as Outcome
from vbss.separation.many import separate_many as separate_many
from vbss.separation.results import Block as Block
from vbss.separation.results import Localization as Localization
from vbss.separation.results import LongSeparation as LongSeparation
from vbss.separation.results import Separation as Separation
from vbss.separation.whole import localize as localize
from vbss.separation.whole import separate as separate
