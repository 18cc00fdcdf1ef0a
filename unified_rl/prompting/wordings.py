"""The two published wordings of questions and answers about everyday objects.

Source: UniRL (arXiv 2505.23380) Table 1; and the metadata file that its authors released for
GenEval's prompts.
Departs: Table 1 says "above of" in its one prompt and answer about positions; here it is "above",
as GenEval has it. Articles, plurals and verbs are correct English, which the released file's are
not always ("a oven", "two sheeps", "the skis is green"). The released counting and colour
questions are those of the table.
"""

from types import MappingProxyType

from unified_rl.prompting.world import Wording

TABLE = Wording(
    questions=MappingProxyType(
        {
            "single": "What is the main object of the image?",
            "two": "What are two main objects of the image?",
            "counting": "How many items in this image?",
            "colors": "What is the color of the object?",
            "position": "What are two objects and what is position relationship between two main "
            "items?",
            "attribution": "What are two objects and the colors of two objects in the image?",
        }
    ),
    answers=MappingProxyType(
        {
            "single": "{name}",
            "two": "{one} and {other_one}",
            "counting": "{many}",
            "colors": "{color}",
            "position": "the {name} {verb} {relation} {other_one}",
            "attribution": "the {name} {verb} {color} and the {other} {other_verb} {other_color}",
        }
    ),
    capitalised=True,
)

RELEASED = Wording(
    questions=MappingProxyType(
        {
            "single": "What is the main item in this image?",
            "two": "What are two items in this image?",
            "counting": "How many items in this image?",
            "colors": "What is the color of the object?",
            "position": "What are two objects and What is position relationship between two main "
            "items? Use one sentence.",
            "attribution": "What are two objects and the colors of two objects in the image? Use "
            "one sentence",
        }
    ),
    answers=MappingProxyType(
        {
            "single": "{name}",
            "two": "There is {one} and {other_one}",
            "counting": "{many}",
            "colors": "{color}",
            "position": "The {name} {verb} {relation} the {other}",
            "attribution": "The {name} {verb} {color} and the {other} {other_verb} {other_color}",
        }
    ),
)

WORDINGS = MappingProxyType({"table": TABLE, "released": RELEASED})
