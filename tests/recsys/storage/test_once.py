"""What is kept, for whom and how long."""

from __future__ import annotations

from recsys.storage.once import keeping, let_go, once


def test_a_value_is_made_once_for_a_key_inside_of_a_block_alone() -> None:
    made: list[str] = []

    def value(key: str, kind: str = "a") -> str:
        return once(kind, key, lambda: made.append(key) or key)

    assert [value("x"), value("x")] == ["x", "x"] and made == ["x", "x"]
    made.clear()
    with keeping():
        value("x")
        value("x")
        assert made == ["x"]
        value("y")  # one of a kind is kept
        value("x")
        assert made == ["x", "y", "x"]
        value("x", "b")
        let_go("b")
        value("x")
        value("x", "b")
        assert made == ["x", "y", "x", "x", "x"]
        with keeping():  # another configuration's
            value("x")
        assert len(made) == 6
        value("x")
        assert len(made) == 6
    value("x")
    assert len(made) == 7


def test_a_failure_is_not_kept() -> None:
    with keeping():
        for _ in range(2):
            try:
                once("a", "x", lambda: 1 / 0)
            except ZeroDivisionError:
                continue
        assert once("a", "x", lambda: 1) == 1
