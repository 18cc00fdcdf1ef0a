"""Reasoned answers taken apart and compared: cases decided by hand, and texts that mean harm."""

import itertools
import random
import re
import time

import pytest

from unified_rl.rewards.answers import (
    chosen_option,
    options_in,
    reasoned,
    same_answer,
    split_reasoning,
)
from unified_rl.rewards.numerals import number_of
from unified_rl.rewards.released_answers import (
    is_lazily_reasoned,
    loose_answer,
    loosely_same,
    soft_jaccard,
    tagged_answer,
)

GOOD = "<think>two corners</think><answer>B</answer>"
CYRILLIC_A, CYRILLIC_E, KELVIN = "\u0410", "\u0435", "\u212a"
FULLWIDTH_B, ARABIC_THREE = "\uff22", "\u0663"
LONG = 100_000


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD, ("two corners", "B")),
        (f" \n{GOOD}\n ", ("two corners", "B")),
        ("<think>a</think>\n . ..\n<answer> b </answer>", ("a", "b")),
        ("<think>a\nb</think><answer>c\nd</answer>", ("a\nb", "c\nd")),
        ("<think></think><answer></answer>", ("", "")),
        # other tags and lone brackets are words
        ("<think>x < y <b></think><answer>></answer>", ("x < y <b>", ">")),
    ],
)
def test_reasoned_answers_come_apart(text, parts):
    assert split_reasoning(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "<answer>B</answer>",
        "<think>two corners</think>",
        "<answer>B</answer><think>two corners</think>",
        f"well, {GOOD}",
        f"{GOOD} i think",
        f"{GOOD}.",
        GOOD + GOOD,
        GOOD + "</answer>",
        "<think>" + GOOD,
        "<think>a</think> so <answer>B</answer>",
        "<think>a</think>,<answer>B</answer>",
        "<think>a</think><answer>A</answer><answer>B</answer>",
        "<think>a<think>b</think></think><answer>B</answer>",
        "<think>a<answer>A</answer></think><answer>B</answer>",
        "<think>a<answer>B</think></answer>",
        "</think>a<think><answer>B</answer>",
        "<think>a</think></answer>B<answer>",
        "<think>a</think><answer>B",
        "<think>a<answer>B</answer>",
        "<THINK>a</THINK><answer>B</answer>",
        "< think>a</think><answer>B</answer>",
        "<think >a</think><answer>B</answer>",
        GOOD.replace("think", f"think{chr(0x200B)}"),
        GOOD.replace("answer", f"answ{CYRILLIC_E}r"),
        GOOD.replace("<", "\uff1c"),
        GOOD.replace("</", "<\u2215"),
    ],
)
def test_anything_else_does_not(text):
    assert split_reasoning(text) is None


def test_reasoned_is_what_split_takes():
    assert reasoned("two corners", "B") == GOOD


NUMBERS = [
    ("0", 0),
    ("007", 7),
    ("3.0", 3),
    (".5", 0.5),
    ("-2.5", -2.5),
    ("\N{MINUS SIGN}2", -2),
    ("+4", 4),
    ("1,234,567.5", 1234567.5),
    ("3 million", 3_000_000),
    ("2.5 thousand", 2500),
    ("zero", 0),
    ("Three", 3),
    ("twelve", 12),
    ("twenty-one", 21),
    ("ninety nine", 99),
    ("hundred", 100),
    ("a hundred", 100),
    ("one hundred and five", 105),
    ("three hundred forty-two", 342),
    ("twelve hundred", 1200),
    ("a thousand", 1000),
    ("one thousand and one", 1001),
    ("twenty thousand three hundred", 20_300),
    ("nine hundred ninety-nine thousand nine hundred and ninety-nine", 999_999),
    ("one million", 1_000_000),
    ("two million three thousand and four", 2_003_004),
    ("minus two point five", -2.5),
    ("three point one four", 3.14),
    ("point two five", 0.25),
    ("negative seven", -7),
]
NO_NUMBERS = [
    "",
    "-",
    ".",
    "a",
    "and",
    "and five",
    "one two",
    "twenty ten",
    "twenty twenty",
    "ten one",
    "twenty zero",
    "one hundred and",
    "hundred hundred",
    "zero hundred",
    "one thousand million",
    "one million thousand",
    "one thousand thousand",
    "one thousand zero",
    "zero thousand",
    "twelve hundred thousand",
    "one thousand twelve hundred",
    "point",
    "one point",
    "one point ten",
    "one point two point three",
    "minus minus one",
    "1,00",
    "1,0000",
    "1.2.3",
    "1e3",
    "0x10",
    "1/2",
    "3 4",
    "3 apples",
    "5%",
    "inf",
    "nan",
    "1_000",
    ARABIC_THREE,
    "\u00b2",
    "9" * 201,
    "one " * 60,
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_numbers_are_read(text, value):
    assert number_of(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_other_texts_are_no_numbers(text):
    assert number_of(text) is None


def test_numbers_are_exact():
    # as floating point numbers these two are one
    assert number_of("0.1000000000000000000001") != number_of("0.1")


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("Red", "red", True),
        (" red. ", "red", True),
        ("red...", "red.", True),
        ("a  red\ncircle", "a red circle", True),
        ("3", "three", True),
        ("Three.", "3.0", True),
        ("1,000,000", "one million", True),
        ("STRASSE", "stra\u00dfe", True),  # case is folded
        ("red", "redder", False),
        ("red or blue", "red", False),
        ("not red", "red", False),
        ("", "red", False),
        (".", "red", False),
        ("3 or 4", "3", False),
        ("3", "30", False),
        ("-3", "3", False),
        ("three apples", "3", False),
        (ARABIC_THREE, "3", False),
        (f"r{CYRILLIC_E}d", "red", False),
        ("<answer>red", "red", False),
    ],
)
def test_answers_are_compared_whole(answer, gold, same):
    assert same_answer(answer, gold) is same
    assert same_answer(gold, answer) is same


SHAPES = {"A": "circle", "B": "square", "C": "three", "D": "A or B", "E": "square and circle"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        # letters
        ("B", "B"),
        ("b", "B"),
        (" B. ", "B"),
        ("(b)", "B"),
        ("B)", "B"),
        ("B:", "B"),
        ("option B", "B"),
        ("Option (B).", "B"),
        ("answer is B", "B"),
        ("The answer is B.", "B"),
        ("the correct answer is option b", "B"),
        ("So, my final answer is: (B)", "B"),
        ("Answer: B", "B"),
        ("It is B", "B"),
        ("I choose B", "B"),
        # texts of options, and both
        ("square", "B"),
        ("Square.", "B"),
        ("The answer is square", "B"),
        ("3", "C"),
        ("B. square", "B"),
        ("(B) Square", "B"),
        ("B: square.", "B"),
        ("B square", "B"),
        ("C. 3.0", "C"),
        # the text of D and E, though it speaks of two others
        ("A or B", "D"),
        ("square and circle", "E"),
        # two options, or a letter with the text of another option
        ("A, B", None),
        ("A and B", None),
        ("A/B", None),
        ("AB", None),
        ("B or C", None),
        ("(A) (B)", None),
        ("B. circle", None),
        ("A. circle B. square", None),
        ("square or circle", None),
        ("answer is A ... answer is B", None),
        ("the answer is A. No, the answer is B", None),
        # more than an answer, no option, nothing
        ("B because it has corners", None),
        ("not B", None),
        ("F", None),
        ("a square", None),  # articles are words
        ("", None),
        ("()", None),
        # letters that only look like A, B and K
        (CYRILLIC_A, None),
        (FULLWIDTH_B, None),
        (f"option {CYRILLIC_A}", None),
    ],
)
def test_options_that_answers_name(answer, letter):
    assert chosen_option(answer, SHAPES) == letter


def test_without_options_any_letter_is_one():
    assert chosen_option("the answer is K", {}) == "K"
    assert chosen_option("B. square", {}) is None
    assert chosen_option(KELVIN, {}) is None


def test_options_of_one_text_are_told_apart_by_letter_only():
    options = {"A": "3", "B": "three"}
    assert chosen_option("B", options) == "B"
    assert chosen_option("3", options) is None


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("which?\nA. red\nB. blue", {"A": "red", "B": "blue"}),
        ("which?\r\n A.red \r\n\r\n B.  dark blue\r\n", {"A": "red", "B": "dark blue"}),
        ("which?\n(A) red\n(B) blue\n(C) C", {"A": "red", "B": "blue", "C": "C"}),
        ("a) red\nb) blue\nplease answer", {"A": "red", "B": "blue"}),
        # D does not follow B
        ("A. red\nB. blue\nD. green", {"A": "red", "B": "blue"}),
        # a line of the question that looks like an option, before and after
        ("A. Smith saw this\nwhich?\nA. red\nB. blue", {"A": "red", "B": "blue"}),
        ("A. red\nB. blue\nA. Smith asks", {"A": "red", "B": "blue"}),
        ("A. x\nB. y\nwhich?\nA. red\nB. blue", {"A": "red", "B": "blue"}),
        ("A. red", {}),
        ("B. red\nC. blue", {}),
        ("what colour is it?", {}),
        (f"{CYRILLIC_A}. red\nB. blue", {}),
        ("", {}),
    ],
)
def test_options_are_lines_of_the_question(question, options):
    assert options_in(question) == options


LAZY = re.compile(r"<think>.*?</think>[.\s]*<answer>.*?</answer>", re.DOTALL)
TAGGED = re.compile(r"<answer>(.*?)</answer>")
PIECES = ("<think>", "</think>", "<answer>", "</answer>", ".", "\n", "x")


def texts_of_pieces():
    """All of up to 5 pieces (19 608), 20 000 random ones of 4 to 14."""
    for length in range(6):
        yield from map("".join, itertools.product(PIECES, repeat=length))
    rng = random.Random(0)
    for _ in range(20_000):
        text = "".join(rng.choices(PIECES, k=rng.randint(0, 10)))
        yield f"<think>{text}</answer>" if rng.random() < 0.8 else text


def loose_by_regex(text):
    match = TAGGED.search(text)
    if match:
        return match[1].strip()
    text = re.sub("<think>.*?</think>", "", text, flags=re.DOTALL)
    for word in PIECES[:4]:
        text = text.replace(word, "")
    return text.strip()


def test_the_lazy_form_equals_its_regex():
    matching = 0
    for text in texts_of_pieces():
        wanted = LAZY.fullmatch(text) is not None
        assert is_lazily_reasoned(text) is wanted, text
        matching += wanted
    assert matching > 1000


def test_loose_answers_equal_their_regex():
    for text in texts_of_pieces():
        assert loose_answer(text) == loose_by_regex(text), text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>the Answer: B", "the  B"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("<think>a", "a"),
        ("<answer>A</answer><answer>B</answer>", "A"),
        # the answer of two lines is none; what is left are the words outside of thoughts
        ("<think>a</think><answer>A\nB</answer>", "A\nB"),
        ("<answer>A\n<answer>B</answer>", "B"),
    ],
)
def test_loose_answers(text, answer):
    assert loose_answer(text) == answer


def test_tagged_answers_are_none_without_tags():
    assert tagged_answer("B") is None
    assert tagged_answer("<answer>B") is None


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("Red.", "red", True),
        ("three", "3", True),
        ("3", "Three", True),
        ("3.0", "three", False),  # digits are compared as they stand
        ("twenty-one", "21", False),  # one word only
        ("red", "red.", False),  # dots of the gold answer stay
        (".", "", True),
    ],
)
def test_loose_equality(answer, gold, same):
    assert loosely_same(answer, gold) is same


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("red circle", "red square", 1 / 3),  # 1 of red, circle, square
        ("A or B", "B", 1 / 3),
        ("Red", "red", 1),
        ("red red red", "red", 1),  # sets
        ("", "", 0),
        ("red", "", 0),
        # difflib: 2 * 6 / (7 + 6) = 12/13 for a plural; (12/13) / (1 + 1 - 12/13)
        ("circles", "circle", (12 / 13) / (14 / 13)),
        # 2 * 3 / (3 + 5) = 0.75 is below 0.8
        ("red", "redly", 0),
        # "cats" takes "cat" (6/7) and leaves nothing to "cut", whose 2/3 is too low anyway
        ("cats cut", "cat", (6 / 7) / (3 - 6 / 7)),
        # the first of two that are alike takes the only partner: 8/9, not 8/9 twice
        ("boxes boxer", "boxe", (8 / 9) / (3 - 8 / 9)),
    ],
)
def test_soft_jaccard(answer, gold, score):
    assert soft_jaccard(answer, gold) == pytest.approx(score)


HOSTILE = {
    "open thoughts": "<think>" * (LONG // 7),
    "closed thoughts": "<think>" + "</think>" * (LONG // 8),
    "empty thoughts": "<think></think>" * (LONG // 15),
    "open answers": "<think></think>" + "<answer>" * (LONG // 8),
    "turns": "<think>" + "</think>. <answer>" * (LONG // 18),
    "dots": "<think></think>" + "." * LONG + "<answe",
    "dotted": "<think>" + ("</think>" + "." * 300) * (LONG // 308) + "</answer>",
    "blanks": " " * LONG,
    "a long answer": f"<think>a</think><answer>{'B ' * (LONG // 2)}</answer>",
    "digits": f"<think>a</think><answer>{'9' * LONG}</answer>",
    "number words": f"<think>a</think><answer>{'one hundred ' * (LONG // 12)}</answer>",
    "leads": f"<think>a</think><answer>{'the answer is ' * (LONG // 14)}</answer>",
    "brackets": f"<think>a</think><answer>{'(' * LONG}</answer>",
    "letter and dots": f"<think>a</think><answer>B{'.:)' * (LONG // 3)}!</answer>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_take_milliseconds(name):
    text = HOSTILE[name]
    # process time, so that a busy machine makes no failure; quadratic time would be seconds
    start = time.process_time()
    parts = split_reasoning(text)
    answer = parts.answer if parts else text
    assert chosen_option(answer, SHAPES) in (None, "B")
    assert not same_answer(answer, "three")
    assert not is_lazily_reasoned(text) or parts
    assert len(options_in(text)) == 0
    assert loose_answer(text) is not None
    assert time.process_time() - start < 0.5


def test_many_words_are_compared_in_little_time():
    text = " ".join(f"w{number}" for number in range(16_000))
    start = time.process_time()
    # w1000 shares 4 of 5 letters with w100 and the like, but each is left to one
    assert 0 < soft_jaccard(text, "w100 w1000 circle") < 0.001
    assert time.process_time() - start < 1.5
