"""Separation by trained networks."""

from vbss.neural.separation import NeuralSeparation as NeuralSeparation
from vbss.neural.separation import separate_from_network as separate_from_network
from vbss.neural.separation import separate_neural as separate_neural
from vbss.neural.trained import TrainedSeparator as TrainedSeparator
from vbss.neural.training import NeuralTraining as NeuralTraining
from vbss.neural.training import train_separator as train_separator
