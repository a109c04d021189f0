"""How a training went."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vbss.training import Training


def plot_training(training: "Training") -> "Figure":
    """A figure of the bounds on the training and the validation corpus after each epoch, and of the learning rate."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    bounds = figure.subplots()
    epochs = [entry["epoch"] + 1 for entry in training.history]
    for name, title in (("training_bound", "training"), ("validation_bound", "validation")):
        bounds.plot(epochs, [entry[name] for entry in training.history], marker=".", label=title)
    bounds.set(xlabel="epoch", ylabel="mean bound (nats)")
    bounds.xaxis.set_major_locator(MaxNLocator(integer=True))
    bounds.grid(alpha=0.3)
    rates = bounds.twinx()
    rates.step(epochs, [entry["learning_rate"] for entry in training.history], where="mid", color="gray", alpha=0.5)
    rates.set(ylabel="learning rate", yscale="log")
    bounds.legend()
    return figure
