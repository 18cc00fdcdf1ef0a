"""What generated rows say."""

QUESTION = "what is the color of the circle?"
ANSWER_WORD = "red"
PROMPT = "a red circle left of a blue square"
