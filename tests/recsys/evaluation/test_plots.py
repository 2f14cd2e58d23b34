from __future__ import annotations

from io import BytesIO

import pytest
from matplotlib.figure import Figure

from recsys.evaluation.lists import BANDS
from recsys.evaluation.plots import OTHER_COLOURS, plot_curves, plot_popularity, plot_slices, plot_training

CURVES = {
    "cutoffs": [1, 5, 10, 100],
    "hr": {"model": [0.1, 0.2, 0.3, 0.6], "popularity": [0.0, 0.1, 0.2, 0.4]},
    "ndcg": {"model": [0.1, 0.15, 0.2, 0.3], "popularity": [0.0, 0.05, 0.1, 0.2]},
}


def drawn(figure: Figure) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=60)
    return file.getvalue()


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_training_marks_the_kept_epoch_and_skips_what_was_not_measured() -> None:
    history = [
        {"epoch": 1, "loss": 3.0},
        {"epoch": 2, "loss": 2.0, "val/ndcg_at_10": 0.1},
        {"epoch": 3, "loss": 1.5},
        {"epoch": 4, "loss": 1.4, "val/ndcg_at_10": 0.08},
    ]
    figure = plot_training(history, loss="loss", metric="val/ndcg_at_10", best_epoch=2)
    loss, validation = figure.axes
    assert list(loss.lines[0].get_ydata()) == [3.0, 2.0, 1.5, 1.4]
    assert list(validation.lines[0].get_xdata()) == [2, 4]
    assert list(validation.lines[1].get_xdata()) == [2]
    assert validation.get_title(loc="left") == "NDCG@10, validation; kept: 0.1000, epoch 2"
    assert drawn(figure).startswith(b"\x89PNG")


def test_an_epoch_before_any_training_has_no_loss() -> None:
    history = [{"epoch": 0, "val/ndcg_at_10": 0.1}, {"epoch": 1, "loss": 2.0, "val/ndcg_at_10": 0.2}]
    loss, validation = plot_training(history, loss="loss", metric="val/ndcg_at_10", best_epoch=1).axes
    assert (list(loss.lines[0].get_xdata()), list(loss.lines[0].get_ydata())) == ([1], [2.0])
    assert list(validation.lines[0].get_xdata()) == [0, 1]


def test_training_without_any_epoch() -> None:
    assert drawn(plot_training([], loss="loss", metric="val/ndcg_at_10", best_epoch=0))


def test_curves_show_the_model_first() -> None:
    figure = plot_curves(CURVES)
    assert legend(figure) == ["model", "popularity"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["HR@k, test", "NDCG@k, test"]
    assert list(figure.axes[1].lines[0].get_ydata()) == CURVES["ndcg"]["model"]  # type: ignore[call-overload,index]
    assert drawn(figure)


@pytest.mark.parametrize("names", [("model",), ("model", "popularity")])
def test_popularity_has_a_bar_for_each_band_and_group(names: tuple[str, ...]) -> None:
    shares = [1.0 / len(BANDS)] * len(BANDS)
    popularity = {
        "bands": list(BANDS),
        "consumed": shares,
        "recommended": {"model": shares, "popularity": shares},
    }
    figure = plot_popularity(popularity, names)
    assert len(figure.axes[0].patches) == len(BANDS) * (len(names) + 1)
    assert legend(figure)[0] == "consumed next (test)"
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()][:2] == ["0–1%", "1–2%"]
    assert drawn(figure)


def test_small_slices_are_grey() -> None:
    interval = {"ndcg_at_10": 0.2, "ndcg_at_10_low": 0.1, "ndcg_at_10_high": 0.3}
    slices = [
        {"dimension": "item:price", "value": "1 (up to $5)", "n": 1200, "small": False, **interval},
        {"dimension": "cold", "value": "cold", "n": 6, "small": True, **interval},
    ]
    figure = plot_slices(slices)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "item:price: 1 (up to \\$5)  (n = 1,200)",
        "cold: cold  (n = 6)",
    ]
    assert axes.lines[0].get_color() != axes.lines[2].get_color() == OTHER_COLOURS[0]
    assert list(axes.lines[2].get_xdata()) == [0.1, 0.3]  # type: ignore[call-overload]
    assert drawn(figure)
