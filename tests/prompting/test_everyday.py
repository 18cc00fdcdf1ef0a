"""The 160 objects: GenEval's names in its order, and 80 that are none of them."""

from unified_rl.prompting.everyday import COCO, OWN, everyday_world

SYNONYMS = (
    *("man", "woman", "child", "bike", "automobile", "motorbike", "plane", "aeroplane", "ship"),
    *("canoe", "traffic signal", "hydrant", "stool", "armchair", "duck", "owl", "penguin"),
    *("kitten", "puppy", "pony", "lamb", "bull", "bag", "purse", "necktie", "luggage", "ski"),
    *("ball", "soccer ball", "football", "basketball", "bat", "glove", "racket", "jar", "glass"),
    *("mug", "plate", "burger", "tangerine", "doughnut", "cupcake", "sofa", "plant", "flower"),
    *("table", "desk", "coffee table", "television", "computer", "mouse", "remote", "keyboard"),
    *("phone", "stove", "basin", "fridge", "notebook", "watch", "alarm clock", "hair dryer"),
)


def test_there_are_eighty_of_each():
    assert len(COCO) == len(OWN) == 80
    assert len({*COCO, *OWN}) == 160
    assert [thing.name for thing in everyday_world().things] == [*COCO, *OWN]


def test_the_order_is_that_of_the_detector_that_geneval_uses():
    # class indices of COCO in mmdet: person 0, dog 16, wine glass 40, toothbrush 79
    assert [COCO[index] for index in (0, 16, 40, 79)] == [
        "person",
        "dog",
        "wine glass",
        "toothbrush",
    ]


def test_ours_are_no_other_names_of_theirs():
    assert not set(OWN) & set(SYNONYMS)


def test_no_name_stands_inside_another_one():
    # or an answer about a "desk lamp" would be right about a "lamp"; COCO's own "hot dog" stays
    for own in OWN:
        for name in (*COCO, *OWN):
            if name != own:
                assert f" {own} " not in f" {name} "
                assert f" {name} " not in f" {own} "


def test_plurals_are_distinct_and_no_others_names():
    things = everyday_world().things
    plurals = {thing.plural for thing in things}
    assert len(plurals) == 160
    for thing in things:
        assert thing.plural == thing.name or thing.plural not in {*COCO, *OWN}


def test_only_people_take_no_color():
    assert [thing.name for thing in everyday_world().things if not thing.takes_color] == ["person"]
