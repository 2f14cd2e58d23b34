"""The page: everything shows that a record has, nothing that others wrote acts, and whatever is missing is left out."""

from __future__ import annotations

import copy
from html.parser import HTMLParser
from typing import Any

import pytest

from recsys.report.lineage import lineage
from recsys.report.night import Night
from recsys.report.page import page
from recsys.report.quality import against, metrics_table
from recsys.report.training import phases, switch_said
from recsys.report.verdict import verdict
from tests.recsys.report.nights import NASTY, history, person, whole_night, with_nan

VOID = {"meta", "link", "br", "img", "input"}


class Outline(HTMLParser):
    """Elements of a page, and its visible text; fails at a tag that is not closed in its place."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.names: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.feed(content)
        assert not self.opened

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.opened and self.opened[-1] not in ("style", "title", "desc"):
            self.text.append(data)
            if self.opened[-1] in ("h1", "h2", "h3"):
                self.headings.append((self.opened[-1], data))

    def shown(self) -> str:
        return " ".join(" ".join(self.text).split())


def test_a_whole_night_shows_every_section_in_order() -> None:
    found = [text for level, text in Outline(page(whole_night())).headings if level == "h2"]
    assert found == [
        "Checks",
        "Quality",
        "For whom it works",
        "Rules",
        "Recommended and consumed",
        "Training",
        "Data",
        "4 users, drawn at random",
        "Worst failures",
        "Time and memory",
        "Lineage",
    ]


def test_rules_show_their_price_and_short_lists() -> None:
    shown = Outline(page(whole_night())).shown()
    assert "few at_most 0.2500 0.2600 −0.0100 −0.0200 to +0.0010 −0.0100 300 25%" in shown
    assert (
        "lists shorter than k and the items left allow 12 of 1,300" in shown and "condition of rules.few (<b>)" in shown
    )


def test_the_verdict_comes_first_and_says_its_word_once() -> None:
    shown = Outline(page(whole_night())).shown()
    assert shown.startswith("shop: the night's report 28 November 2026, 20:59 UTC ✓ Published Better than yesterday's")
    kept = Outline(page(whole_night(passed=False))).shown()
    assert "✗ Kept back Drift. Drift of items is 0.31, above 0.25." in kept


def test_failed_checks_come_first() -> None:
    checks = verdict(Night(whole_night()))["checks"]
    assert [check["status"] for check in checks] == ["failed", "passed", "skipped"]


def test_nothing_that_others_wrote_becomes_markup() -> None:
    outline = Outline(page(whole_night()))
    assert "script" not in outline.names and "img" not in outline.names
    shown = "".join(outline.text)
    for title in NASTY:
        assert title in shown
    assert not [name for _, name, _ in outline.attributes if name.startswith("on")]


def test_the_page_refers_to_nothing_outside_but_by_links_that_are_followed_by_hand() -> None:
    found = [
        (tag, name, value)
        for tag, name, value in Outline(page(whole_night())).attributes
        if name in ("src", "href", "action", "data") and value and not value.startswith(("#", "data:"))
    ]
    assert found == [("a", "href", "http://127.0.0.1:5000/#/runs/23cf")]
    assert "@import" not in page(whole_night()) and "url(" not in page(whole_night())


def test_an_address_that_is_no_web_page_is_no_link() -> None:
    night = whole_night()
    night["about"]["mlflow"] = "javascript:alert(1)"
    outline = Outline(page(night))
    assert ("a", "href", "javascript:alert(1)") not in outline.attributes
    assert "javascript:alert(1)" in outline.shown()


def test_ids_are_not_shown_unless_asked() -> None:
    assert "user-1" not in page(whole_night())
    assert "user-1" in page(whole_night(), called=str)


def test_the_switch_of_the_objective_is_explained_and_its_losses_are_apart() -> None:
    content = page(whole_night())
    assert "epochs 1 to 3 asked for next items, epochs 4 to 5 asked for hidden items (cloze)" in content
    assert content.count('class="phase') == 2
    assert phases(history()) == [("next-item", 1, 3), ("cloze", 4, 5)]


def test_older_records_that_name_no_objective_have_one_line_and_no_explanation() -> None:
    entries = [{name: value for name, value in entry.items() if name != "objective"} for entry in history()]
    assert phases(entries) == [("", 1, 5)]
    assert switch_said(phases(entries)) is None
    assert switch_said([("cloze", 1, 9)]) is None


def test_small_slices_are_grey() -> None:
    content = page(whole_night())
    assert content.count('<tr class="small">') == 1


def test_the_hit_is_marked_in_the_list() -> None:
    night = whole_night()
    night["steps"]["evaluate"]["report"]["journeys"]["users"] = [person("u", ["first", "second"], 2)]
    content = page(night)
    assert content.count('<li class="hit">') == 1
    assert content.index('<li class="hit">') < content.index("second</bdi> <span>✓ came next")


def without(night: dict[str, Any], *path: str) -> dict[str, Any]:
    found = night = copy.deepcopy(night)
    for key in path[:-1]:
        found = found[key]
    del found[path[-1]]
    return night


REPORT = ("steps", "evaluate", "report")


@pytest.mark.parametrize(
    ("path", "gone"),
    [
        (("verdict",), "Checks"),
        (("about",), "seed"),
        (("steps",), "All other measures"),
        (("steps", "train"), "Training"),
        (("steps", "ingest"), "Rows of this night's reading"),
        (("steps", "evaluate"), "All other measures"),
        (("steps", "publish"), "registered model"),
        ((*REPORT, "slices"), "For whom it works"),
        ((*REPORT, "curves"), "Bands are 95% intervals"),
        ((*REPORT, "curves", "bands"), "Bands are 95% intervals"),
        ((*REPORT, "baselines"), "lead over the best baseline"),
        ((*REPORT, "journeys"), "Worst failures"),
        ((*REPORT, "categories"), "By genre group"),
        ((*REPORT, "popularity"), "By popularity"),
        ((*REPORT, "report", "volume"), "events per day"),
        ((*REPORT, "report"), "test users"),
        ((*REPORT, "served"), "(blend)"),
    ],
)
def test_what_a_record_lacks_the_page_leaves_out(path: tuple[str, ...], gone: str) -> None:
    assert gone in Outline(page(whole_night())).shown()
    assert gone not in Outline(page(without(whole_night(), *path))).shown()


@pytest.mark.parametrize("night", [{}, {"name": "x", "steps": {}}, {"status": "failed", "error": "<full> disk"}])
def test_a_record_with_nothing_has_a_page(night: dict[str, Any]) -> None:
    assert "No verdict" in Outline(page(night)).shown()


def test_a_night_without_training_has_a_page() -> None:
    night = whole_night()
    night["steps"]["train"]["report"]["history"] = []
    assert "Training" not in [text for _, text in Outline(page(night)).headings]


def test_it_says_what_of_the_log_the_sources_know() -> None:
    night = whole_night()
    night["steps"]["train"]["report"]["blend"] = {"reach": {"linear": {"events": 0.827, "targets": 0.726, "pairs": 1}}}
    said = "the items of 83% of the training events and 73% of the items asked; 100% of the pairs of events"
    assert f"known to the source linear {said}" in " ".join(Outline(page(night)).shown().split())


def test_figures_that_are_no_numbers_are_dashes() -> None:
    shown = Outline(page(with_nan(whole_night()))).shown()
    assert "nan" not in shown.lower().replace("finance", "")
    assert "–" in shown


def test_without_a_verdict_the_best_baseline_is_named() -> None:
    night = whole_night()
    night["verdict"] = None
    assert verdict(Night(night))["sentence"] == (
        "This night was not judged. The best baseline by NDCG@10 is popularity with 0.1500; the blend leads it by "
        "+0.1500 (+0.1000 to +0.2000)."
    )


@pytest.mark.parametrize(
    ("metric", "shown", "own", "lead"),
    [
        ("ndcg@10", "NDCG@10", "0.1500", "+0.1500"),
        ("hr@10", "HR@10", "0.2500", "+0.2000"),
        ("recall@20", "recall@20", "0.1250", "–"),  # nobody resampled it
    ],
)
def test_comparisons_are_by_one_metric_which_is_named(metric: str, shown: str, own: str, lead: str) -> None:
    night = whole_night()
    night["verdict"] |= {"metric": metric}
    evaluated = night["steps"]["evaluate"]["report"]
    evaluated["differences"]["model"]["test/hr_at_10"] = {"mean": 0.2, "low": 0.1, "high": 0.3}
    evaluated["further"] = {"model": {"test/recall_at_20": 0.125}}
    compared = against(Night(night))
    assert compared is not None and compared["metric"] == shown
    assert [row["name"] for row in compared["rows"]] == ["champion", "popularity", "model"]
    assert (compared["rows"][2]["value"], compared["rows"][2]["difference"]) == (own, lead)
    text = Outline(page(night)).shown()
    assert f"{shown} of what is served (blend) minus that of each other" in text
    assert f"{shown} against the champion +0.0040 ahead; 95%: +0.0021 to +0.0059" in text


def test_intervals_are_of_the_level_that_the_gate_asks_for() -> None:
    night = whole_night()
    night["verdict"] |= {"confidence": 0.99}
    text = Outline(page(night)).shown()
    assert "ahead; 99%: +0.0021 to +0.0059" in text
    assert "difference: 99% for all of the gate's comparisons together, 95% for others, each alone" in text
    del night["verdict"]["confidence"]  # as records of older versions
    text = Outline(page(night)).shown()
    assert "ahead; +0.0021 to +0.0059" in text
    assert "difference: of one level for all of the gate's comparisons together, 95% for others, each alone" in text
    night["verdict"] = None
    assert "difference: 95% for each alone" in Outline(page(night)).shown()


def test_a_night_that_was_kept_back_does_not_call_its_bundle_served() -> None:
    for passed, called in ((True, "bundle that is served"), (False, "bundle that would be served")):
        names = {line["name"]: line["value"] for line in lineage(Night(whole_night(passed)))}
        assert names[called] == "shop-ba9876543210"
        assert sum(name.endswith("served") for name in names) == 1


def test_examples_of_older_records_are_shown() -> None:
    night = whole_night()
    evaluated = night["steps"]["evaluate"]["report"]
    del evaluated["journeys"]
    evaluated["examples"] = [
        {"user_id": 1, "history": ["a"], "recommended": ["b", "c"], "target": "c", "rank": 2},
    ]
    shown = Outline(page(night)).shown()
    assert "A user, drawn at random" in shown and "c ✓ came next" in shown


def test_equal_records_give_equal_pages() -> None:
    assert page(whole_night()) == page(whole_night())


def test_ten_users_with_long_lists_stay_far_below_a_megabyte() -> None:
    night = whole_night()
    people = [person(f"u{number}", ["t" * 80] * 10, 3) for number in range(10)]
    night["steps"]["evaluate"]["report"]["journeys"] = {"users": people, "failures": people}
    night["steps"]["evaluate"]["report"]["report"]["volume"]["events"] = [10**6] * 366
    assert len(page(night).encode()) < 300_000


def test_a_night_on_which_nobody_answers_a_question_has_no_best_and_no_lead() -> None:
    night = whole_night()
    evaluated = night["steps"]["evaluate"]["report"]
    for values in (evaluated["metrics"], *evaluated["baselines"].values()):
        values |= {"test/ndcg_at_10": 0.0, "test/hr_at_10": 0.0}
    tie = {"difference": 0.0, "low": 0.0, "high": 0.0, "outcome": "undecided", "value": 0.0}
    night["verdict"] |= {"champion": tie, "baselines": {"popularity": tie}}
    table = metrics_table(Night(night))
    assert table is not None
    for row in table["main"]:
        zero = row["name"] in ("NDCG@10", "HR@10")
        assert [cell["text"] == "0.0000" for cell in row["cells"]] == 3 * [zero]
        assert not zero or not any(cell["best"] for cell in row["cells"])
    compared = against(Night(night))
    assert compared is not None
    assert {row["outcome"] for row in compared["rows"][:2]} == {"nothing to compare"}
    shown = Outline(page(night)).shown()
    assert "lead over the best baseline – no ranker answers a test question" in shown and "both are 0; 95%" in shown
    night["verdict"] = None
    night["steps"].pop("judge", None)
    assert "no ranker answers a test question, so nothing can be compared" in Outline(page(night)).shown()


def test_a_figure_that_is_no_number_has_a_page() -> None:
    night = whole_night()
    night["steps"]["evaluate"]["report"]["metrics"]["test/ndcg_at_10"] = None
    assert "lead over the best baseline" not in Outline(page(night)).shown()
