"""The run and step of a process: nested blocks, a run that goes on as another, and what an error leaves."""

from __future__ import annotations

import pytest

from recsys.running import current, failed, in_step, named, running, short, switch


def test_blocks_nest_and_a_switch_lasts_until_the_end_of_the_block() -> None:
    with running(run="a" * 32, name="shop"):
        with in_step("ingest"):
            assert (current().run, current().name, current().step) == ("a" * 32, "shop", "ingest")
            switch("b" * 32)
        assert (current().run, current().step) == ("b" * 32, None)
        with running(run="c" * 32):
            assert (current().run, current().name) == ("c" * 32, "shop")
        assert current().run == "b" * 32
    assert current().run is None


def test_an_error_leaves_word_of_where_it_was_until_the_next_run() -> None:
    with pytest.raises(ValueError), running(name="shop"), running(run="a" * 32):
        switch("b" * 32)
        with in_step("train"):
            raise ValueError
    assert current().run is None and current().step is None
    assert (failed().run, failed().name, failed().step) == ("b" * 32, "shop", "train")
    with running(run="d" * 32):
        assert failed().run is None


def test_the_error_of_a_step_alone_is_that_of_its_run_and_of_no_earlier_one() -> None:
    with pytest.raises(ValueError), in_step("train"), running(run="a" * 32, name="shop"):
        raise ValueError
    assert (failed().run, failed().name, failed().step) == ("a" * 32, "shop", "train")
    with pytest.raises(ValueError), in_step("evaluate"):  # before its run began
        raise ValueError
    assert (failed().run, failed().step) == (None, "evaluate")


def test_the_error_of_a_night_is_that_of_its_last_step() -> None:
    with pytest.raises(ValueError), running(run="a" * 32, name="shop"):
        with pytest.raises(KeyError), in_step("retention"):
            raise KeyError
        with in_step("report"):
            raise ValueError
    assert (failed().run, failed().step) == ("a" * 32, "report")


def test_an_id_is_named_by_its_beginning_and_a_whole_one_is_never_several() -> None:
    known = ["3f9a", "3f9a01", "local-77aa", "a2c1", "3f9a"]
    assert named("3f9a", known) == ["3f9a"]
    assert named("3f", known) == ["3f9a", "3f9a01"]
    assert named("77", known) == named("local-77", known) == ["local-77aa"]
    assert named("", known) == named("9", known) == []
    assert short("local-77aa0011" + "2" * 24) == "77aa0011"
