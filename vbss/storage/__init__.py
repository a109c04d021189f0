"""Files of models and results: `save` writes a tree of modules and arrays, `load` brings it back.

A file is a zip archive that `numpy.load` opens too: `header.json` describes the tree, `0.npy`, `1.npy`, ... are its
arrays. There is no pickle in it, and nothing that a file names is imported or called: objects are made without their
`__init__`, of classes that are part of vbss or that the caller hands over.
"""

from vbss.storage.reading import load as load
from vbss.storage.writing import save as save
