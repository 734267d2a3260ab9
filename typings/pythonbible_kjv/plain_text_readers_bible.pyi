# The module is one literal of 4 MB, which a type checker reads for minutes.
class _Bible:
    scripture_content: str
    verse_start_indices: dict[int, int]

bible: _Bible
