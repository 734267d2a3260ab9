"""The system of openai/parameter-golf PR 1430 rung by rung: what it claims, and what is left of it.

The one room that may import claims: it sets claimed numbers beside honest ones, and makes neither
of the honest kinds itself. Only the command `seed` may import it.
"""
