"""Names of the outputs that tell what cuts did."""

from prunus.runtime.card.tokens import token_output, told_blocks


def test_names_are_read_as_they_are_written() -> None:
    names = ["keypoints", *map(token_output, (3, 10)), "heatmaps", "tokens_", "tokens_of_speech"]
    assert told_blocks(names) == (3, 10)
