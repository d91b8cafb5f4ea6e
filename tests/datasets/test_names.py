"""Names of classes: spellings, background, separators, and invisible characters."""

import pytest

from distributed_avel.datasets import Problems
from distributed_avel.datasets.ave import AVE_CLASSES
from distributed_avel.datasets.llp import LLP_CLASSES
from distributed_avel.datasets.names import MERGED, SIMILAR, UNUSUAL, check_names, nearest


def checked(*names: str) -> Problems:
    problems = Problems()
    places = {name: f"videos.csv:{line}" for line, name in enumerate(names, start=2)}
    check_names(places, problems, can_be_empty="leave labels empty")
    return problems


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ("Dog", "dog", "upper and lower case"),
        ("STRASSE", "straße", "upper and lower case"),
        ("ΟΔΟΣ", "οδός"[:2] + "ος", "upper and lower case"),  # final sigma
        ("caf\u00e9", "cafe\u0301", "Unicode normalization"),
        ("dog", "\uff44\uff4f\uff47", "Unicode normalization"),
        ("fire", "\ufb01re", "Unicode normalization"),
        ("dog bark", "dog\u00a0bark", "white space"),
        ("dog bark", "dog\u2003bark", "white space"),
        ("dog bark", "dog\tbark", "white space"),
        ("dog bark", "dog  bark", "white space"),
        ("dog", " dog ", "white space"),
        ("dog", "do\u200bg", "invisible characters"),
        ("dog", "dog\u200b", "invisible characters"),
        ("dog", "\ufeffdog", "invisible characters"),
        ("dog", "d\u00adog", "invisible characters"),
        ("dog", 'dog"', "quotes"),
        ("dog's bark", "dog\u2019s bark", "quotes"),
        ("tic-tac", "tic\u2013tac", "the kind of dash"),
        ("tic-tac", "tic\u2011tac", "the kind of dash"),
        ("Dog bark", "dog\u00a0\u00a0bark", "white space and upper and lower case"),
    ],
)
def test_two_spellings_of_one_class_are_refused_with_both_lines(first, second, difference):
    (error,) = checked(first, "cat", second).errors
    assert error.startswith("videos.csv:4: ")
    assert "(videos.csv:2)" in error
    assert f"differ only in {difference}, so" in error
    assert ascii(second).strip("'\"") in error  # escapes make invisible characters visible


def test_each_further_spelling_is_a_separate_error():
    assert len(checked("dog", "Dog", "DOG", "cat").errors) == 2


@pytest.mark.parametrize("name", ["background", "Background", "BACKGROUND ", "back\u200bground"])
def test_background_is_refused_as_a_class(name):
    (error,) = checked("dog", name).errors
    assert "videos.csv:3: " in error
    assert "cannot be a class" in error
    assert error.endswith("leave labels empty")


@pytest.mark.parametrize("name", ["none", "NaN", "null", "n/a", "<NA>", "no event"])
def test_a_word_for_no_event_is_refused_as_a_class(name):
    assert "cannot be a class" in checked("dog", name).errors[0]


@pytest.mark.parametrize("name", ["dog:2-5", "dog: 2.5 - 5", "dog:0-3,bell", "dog:2\u20135"])
def test_a_label_with_times_is_refused_as_a_class(name):
    assert "is a label with times" in checked(name).errors[0]


@pytest.mark.parametrize("name", ["['dog', 'bell']", '["dog"]', "{'dog'}"])
def test_a_list_in_brackets_is_refused_as_a_class(name):
    assert "is a list; write labels separated by ;" in checked(name).errors[0]


def test_a_name_without_visible_characters_is_refused():
    assert "has no visible character" in checked("\u200b").errors[0]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["dog", "dog,bell"], ["'dog,bell', in addition to 'dog'"]),
        (["dog,bell", "bell"], ["'dog,bell', in addition to 'bell'"]),
        (["dog", "Dog | bell"], ["'Dog | bell', in addition to 'dog'"]),
        (["dog", "dog/bell"], ["'dog/bell', in addition to 'dog'"]),
        (
            ["dog|bell", "cat|dog"],
            ["'dog|bell', in addition to 'cat|dog'", "'cat|dog', in addition to 'dog|bell'"],
        ),
        (["Violin, fiddle", "Violins"], []),
        (["dog", "dog bark", "hot dog"], []),
    ],
)
def test_a_name_joined_from_others_is_an_oddity(names, found):
    problems = checked(*names)
    assert problems.errors == []
    assert [o.message for o in problems.oddities if o.kind == MERGED] == found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("dog\u00a0bark", "white space U+00A0"),
        ("dog  bark", "two consecutive spaces"),
        ("dog\u200b", "invisible U+200B"),
        ('do"g', "a quote"),
        ("d\u043eg", "letters of two alphabets (Cyrillic and Latin)"),
        ("caf\ufffd", "a character that was lost in a conversion"),
    ],
)
def test_misleading_characters_are_an_oddity(name, found):
    (oddity,) = checked("cat", name).oddities
    assert (oddity.kind, oddity.where) == (UNUSUAL, "videos.csv:3")
    assert found in oddity.message


@pytest.mark.parametrize(
    "name",
    [
        "犬の鳴き声",
        "Собака",
        "собака (dog)",
        "می\u200cخواهم",
        "👨\u200d👩\u200d👧",
        "café",
        "C#",
        "x²",
    ],
)
def test_names_in_any_language_are_accepted(name):
    problems = checked("cat", name)
    assert problems.errors == []
    assert problems.oddities == []


def test_names_that_differ_only_in_punctuation_are_reported_as_similar():
    (oddity,) = checked("Frying (food)", "Frying_food").oddities
    assert (oddity.kind, oddity.where) == (SIMILAR, "videos.csv:3")
    assert checked("C", "C#").errors == []


@pytest.mark.parametrize("names", [AVE_CLASSES, LLP_CLASSES])
def test_published_names_are_accepted(names):
    problems = checked(*names)
    assert (problems.errors, problems.oddities) == ([], [])


def test_nearest_prefers_another_spelling_to_a_similar_name():
    assert nearest("CAR", ["cart", "car"]) == "car"
    assert nearest("Spech", LLP_CLASSES) == "Speech"
    assert nearest("zzz", ["car"]) is None
