"""One colour per source."""

# By Okabe and Ito (2008): colour-blind readers tell them apart.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


def source_color(source: int) -> str:
    """The colour of a source, counted from 0; the seventh has that of the first again."""
    return _PALETTE[source % len(_PALETTE)]
