"""The mark of networks inside a model."""


class Weights:
    """Marks a field that holds a network: `decoder: Annotated[Decoder, Weights()]`.

    `vbss.train` learns its weights from a corpus; inference of one recording leaves them as they are.
    """
