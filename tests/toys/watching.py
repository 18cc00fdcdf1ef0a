"""Looks into rollouts from outside."""


def rows_read(policy, monkeypatch):
    """How many rows each pass of the decoder reads, from now on."""
    seen, make = [], policy.new_decoder

    def watched(columns):
        decoder = make(columns)
        read = decoder.read
        decoder.read = lambda embeds, *others: seen.append(len(embeds)) or read(embeds, *others)
        return decoder

    monkeypatch.setattr(policy, "new_decoder", watched)
    return seen
