"""The tree of every error that a user can cause; anything else that escapes is our bug.

ParbyteError
  RecipeError      a recipe, a track or an option is wrong
  DataError        a corpus, a shard or a tokenizer is wrong
  ResourceError    the machine refuses: disk, folder, memory, optional package
  RoleError        a parameter belongs to no role or to two
  CapError         the artifact does not fit its cap
  ArtifactError    an artifact file is damaged, foreign or hostile
  BitstreamError   a bitstream is damaged or belongs to another model
  ProofError       a decode proof failed
"""


class ParbyteError(Exception):
    """One line for the user: what was wrong, where, and what to do."""

    exit_code = 2


class RecipeError(ParbyteError):
    """A recipe, a track or a command-line option is wrong."""


class DataError(ParbyteError):
    """A corpus, a shard or a tokenizer cannot be used."""


class ResourceError(ParbyteError):
    """The machine refuses: no space, no permission, no such optional package."""


class RoleError(ParbyteError):
    """A parameter belongs to no role or to two."""

    exit_code = 3


class CapError(ParbyteError):
    """The artifact does not fit its cap; `parts` says where its bytes are."""

    def __init__(self, message: str, parts: dict[str, int] | None = None) -> None:
        super().__init__(message)
        self.parts = parts or {}


class ArtifactError(ParbyteError):
    """An artifact file is damaged, foreign or hostile."""


class BitstreamError(ParbyteError):
    """A bitstream is damaged or belongs to another model, engine or machine kind."""


class ProofError(ParbyteError):
    """A decode proof failed: the score is not certified."""

    exit_code = 1
