"""The common shape of what a replica would cost a request: seconds, linear in a few quantities of the request.

    seconds = now_s + token_s * u + token2_s * (n^2 - m^2) + output_s * o + (overlap_s + context_s * x) * overlap
    overlap = B*o * R / (B*o + R)

u: uncached prompt tokens, n: prompt tokens, m: cached ones, o: expected output tokens, x: mean context of the request,
B: requests in the replica's batch, R: output tokens that they have left together. The overlap is the number of decode
steps that the request shares with others, summed over them: a smooth form of sum(min(o, remaining_i)), exact for no
and for endless neighbours, and for equal ones within a factor of two.

Because every term that depends on the replica alone has this shape, the weighted terms of all scorers add up to one
tuple per replica, renewed only when the replica changes, and a candidate costs a few multiplications.
"""

from __future__ import annotations

Form = tuple[float, float, float, float, float, float]
"""(now_s, token_s, token2_s, output_s, overlap_s, context_s)"""

Shape = tuple[float, float, float, float, float, float, float, float]
"""A Form, the batch B, and the tokens R that the batch has left."""

NO_FORM: Form = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
NO_SHAPE: Shape = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class KeptForm:
    """A form to be kept: compiled, it is one object and not one for each number; each request makes some."""

    __slots__ = ("form",)

    def __init__(self, form: Form) -> None:
        self.form: Form = form


def add(total: Form, form: Form, early: float, late: float) -> Form:
    """`total` + `form`, its first three parts by the weight `early`, the others by `late`."""
    a, b, c, d, e, f = form
    p, q, r, s, t, u = total
    return (p + early * a, q + early * b, r + early * c, s + late * d, t + late * e, u + late * f)


def overlap(batch: float, remaining: float, output: float) -> float:
    """Decode steps shared with others, summed over them."""
    steps = batch * output
    return steps * remaining / (steps + remaining) if steps > 0.0 and remaining > 0.0 else 0.0


def seconds(form: Form, uncached: float, quad: float, output: float, context: float, shared: float) -> float:
    """What one form says for one request; `shared` is the overlap."""
    a, b, c, d, e, f = form
    return a + b * uncached + c * quad + d * output + (e + f * context) * shared


def early_seconds(form: Form, uncached: float, quad: float) -> float:
    """The part of it that comes before the first token, for the forms of which that is true."""
    return form[0] + form[1] * uncached + form[2] * quad
