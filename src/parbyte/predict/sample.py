"""Text drawn from a predictor, token by token."""

from collections.abc import Iterator

import torch
from torch import Tensor

from parbyte.predict.predictor import Predictor
from parbyte.text.tokenizer import Tokenizer


def generate(
    predictor: Predictor,
    tokenizer: Tokenizer,
    prompt: bytes,
    num_tokens: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
) -> Iterator[bytes]:
    """Yield the bytes that follow `prompt`, as they are drawn, until the document ends.

    num_tokens: at most so many are drawn. temperature: 0 takes the likeliest token every time.
    """
    generator = torch.Generator().manual_seed(seed)
    prompt_ids = tokenizer.encode(prompt).tolist()
    ids: list[int] = []
    num_said = len(tokenizer.decode(tokenizer.encode(prompt)))
    predictor.restore()
    while len(ids) < len(prompt_ids) + num_tokens:
        row_V = predictor.step(torch.tensor(ids[-1:] or [tokenizer.bos_id]))[0]
        is_given = len(ids) < len(prompt_ids)
        token = prompt_ids[len(ids)] if is_given else _draw(row_V, temperature, generator)
        if token == tokenizer.bos_id:
            return
        ids.append(token)
        if len(ids) % predictor.chunk == 0:
            predictor.observe(torch.tensor([ids[-predictor.chunk :]]))
        if not is_given:
            text = tokenizer.decode(torch.tensor(ids).numpy())
            yield text[num_said:]
            num_said = len(text)


def _draw(row_V: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature <= 0:
        return int(row_V.argmax())
    probs_V = torch.softmax(row_V.cpu() / temperature, dim=-1)
    return int(torch.multinomial(probs_V, 1, generator=generator))
