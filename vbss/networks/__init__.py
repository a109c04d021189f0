"""Networks that say what factors of a posterior are."""

from vbss.networks.array import ArrayNetwork as ArrayNetwork
from vbss.networks.localizer import Localizer as Localizer
from vbss.networks.recurrent import Recurrent as Recurrent
from vbss.networks.separator import Separator as Separator
