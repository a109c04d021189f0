"""vbss: variational Bayesian source separation and localisation.

A model is written once, as a NumPyro program; every inference runs from that text.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("vbss")

# Importing JAX and NumPyro takes seconds; the command line's help and errors should not.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
