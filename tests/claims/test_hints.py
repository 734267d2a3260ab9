"""Agreement experts against a slow reference with dictionaries."""

import math
from collections import Counter, defaultdict

import pytest
import torch
from torch import Tensor, nn

from parbyte.claims.hints import Experts, WordClasses, agreement_experts, find_hints
from parbyte.claims.windows import Windows, sliding

VOCAB = 11
WINDOWS = Windows(window=16, stride=4, batch=5)
BEGINS = torch.tensor([v in (1, 2, 3, 4) for v in range(VOCAB)])
BOUNDARY = torch.tensor([v == 0 for v in range(VOCAB)])
CLASSES = WordClasses(begins_word_V=BEGINS, is_boundary_V=BOUNDARY)
SETTINGS = Experts(length=3, words=2, thresholds=(0.5, 0.3, 0.3), chunk=10)


def contexts(text: list[int], place: int, settings: Experts) -> list[tuple]:
    """Return the contexts of the three experts at a position."""
    opens = [i for i in range(place) if BEGINS[text[i]] or BOUNDARY[text[i]]]
    word = opens[-1] if opens else 0
    words = opens[-settings.words] if len(opens) >= settings.words else 0
    begin = max(0, place - settings.length)
    return [tuple(text[begin:place]), tuple(text[word:place]), tuple(text[words:place])]


def reference_hints(text: list[int], settings: Experts) -> list[list[tuple[int, float]]]:
    found: list[list[tuple[int, float]]] = [[], [], []]
    seen: list[dict] = [defaultdict(Counter) for _ in range(3)]
    for first in range(0, len(text), settings.chunk):
        places = range(first, min(first + settings.chunk, len(text)))
        for place in places:
            for e, context in enumerate(contexts(text, place, settings)):
                counts, hint = seen[e][context], (-1, 0.0)
                if counts:
                    most = max(counts.values())
                    best = min(v for v, n in counts.items() if n == most)
                    trust = most / sum(counts.values())
                    begins = bool(BEGINS[text[place]])
                    goes_on = not begins and not BOUNDARY[text[place]]
                    speaks = (True, goes_on, begins)[e] or not settings.asks_answer
                    if trust >= settings.thresholds[e] and speaks:
                        hint = (best, trust)
                found[e].append(hint)
        for place in places:
            for e, context in enumerate(contexts(text, place, settings)):
                seen[e][context][text[place]] += 1
    return found


@pytest.mark.parametrize("asks_answer", [True, False])
def test_hints_and_tilts_equal_their_description(
    net: nn.Module, stream: Tensor, asks_answer: bool
) -> None:
    settings = Experts(
        length=3, words=2, thresholds=(0.5, 0.3, 0.3), chunk=10, asks_answer=asks_answer
    )
    text = torch.cat([stream, stream[10:80]])
    hints = reference_hints(text.tolist(), settings)
    found, _ = find_hints(text, CLASSES, settings)
    assert found.tolist() == [[hint for hint, _ in row] for row in hints]
    assert all((found[e] >= 0).sum() > 5 for e in range(3))
    rows: dict[int, Tensor] = {}
    for batch in WINDOWS.batches(text):
        logits = net.logits(net.hidden(batch.inputs_BL))[batch.row_M, batch.column_M]
        for place, row in zip(batch.positions_M.tolist(), logits.softmax(-1), strict=True):
            rows.setdefault(place, row.detach())
    claimed = agreement_experts(net, text, Windows(window=16, stride=4, batch=5), CLASSES, settings)
    places = claimed.positions_M.tolist()
    for place, nats in zip(places[:120], claimed.nats_M.tolist()[:120], strict=True):
        row, best = rows[place], (0.0, 0.0, -1)
        spoken = [h[place] for h in hints]
        for e, (hint, trust) in enumerate(spoken):
            if hint < 0:
                continue
            same = sum(other == hint for other, _ in spoken)
            boost = settings.boosts[e] + (settings.agreement if same > 1 else 0.0)
            gain = trust * boost - math.log(1 + float(row[hint]) * (math.exp(boost) - 1))
            best = max(best, (gain, boost, hint))
        _, boost, hint = best
        price = -math.log(float(row[text[place]]))
        if hint >= 0:
            price += math.log(1 + float(row[hint]) * (math.exp(boost) - 1))
            price -= boost * (hint == int(text[place]))
        assert nats == pytest.approx(price, abs=1e-6), place


def test_without_hints_nothing_moves(net: nn.Module, stream: Tensor) -> None:
    deaf = Experts(thresholds=(2.0, 2.0, 2.0))
    found = agreement_experts(net, stream, WINDOWS, CLASSES, deaf)
    assert torch.equal(found.nats_M, sliding(net, stream, WINDOWS).nats_M)
