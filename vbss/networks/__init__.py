"""Networks that say what factors of a posterior are."""

from vbss.networks.recurrent import Recurrent as Recurrent
from vbss.networks.separator import Separator as Separator
