"""The contract in numpy: slow, plain, and the judge of everything else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .spec import LEAST_SCALE, NARROW_LIMIT, NO_SCALE, SUM_BLOCK, SUM_VECTORS, Formula

__all__ = [
    "channel_range",
    "fake_quant",
    "folded_norm",
    "folded_norm_gradient",
    "folded_weights",
    "folded_weights_gradient",
    "learnable_gradient",
    "observed_parameters",
    "quotient_gradient",
    "straight_through",
    "sum_of_rows",
]


def fake_quant(
    x: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike,
    axis: int | None,
    quant_min: int,
    quant_max: int,
    out_dtype: DTypeLike | None = None,
    **formula: Any,
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Fake-quantize per channel or per tensor, as docs/numerics.md says, step by step.

    Parameters
    ----------
    x : array_like
        float32, float16 or bfloat16 (of ml_dtypes), any shape.
    scale : array_like
        float32, float16 or bfloat16, shape (x.shape[axis],); without an axis one element, shape () or (1,).
    zero_point : array_like
        int32, float32 or float16, of scale's shape.
    axis : int or None
        Channel dimension, negative counts from the end; 0 or -1 for a 0-dimensional x.  None for one scale and zero
        point of the whole tensor.
    quant_min, quant_max : int
        The range, any int64.
    out_dtype : dtype, optional
        dtype of out; x's by default.
    **formula
        ``form``, ``zero_point_placement``, ``keep_zero_sign`` and ``nan``, as :class:`fq_tvm.spec.Formula` has them;
        the contract's by default.

    Returns
    -------
    out : numpy.ndarray
        x's shape, out_dtype.
    mask : numpy.ndarray
        x's shape, bool.

    Raises
    ------
    FqError
        If there is no such formula.

    Notes
    -----
    Formula: ``aclnnFakeQuantPerChannelAffineCachemask`` as its kernel computes it, with the reciprocal of the scale.
    In the wide path the last subtraction takes the integer zero point itself, as PyTorch does.
    """
    x, scale, zero_point = np.asarray(x), np.asarray(scale), np.asarray(zero_point)
    f32 = np.float32
    how = Formula(**formula).of(zero_point.dtype.name)
    shape = [1] * x.ndim
    if x.ndim and axis is not None:
        shape[axis] = -1
    s, z = scale.astype(f32).reshape(shape), zero_point.reshape(shape)
    promoted = x.dtype if x.dtype == scale.dtype else np.dtype(f32)
    with np.errstate(all="ignore"):
        t = x.astype(f32) * (f32(1) / s) if how.form == "reciprocal" else x.astype(f32) / s
        before = how.zero_point_placement == "before"
        q = np.rint(t + z.astype(f32)) if before else np.rint(t) + z.astype(f32)
        if not how.keep_zero_sign:
            q = q + f32(0)  # it stands for an integer, which has no negative zero
        wide = max(abs(quant_min), abs(quant_max)) > NARROW_LIMIT
        precision = np.float64 if wide else f32
        q, low, high = q.astype(precision), precision(quant_min), precision(quant_max)
        mask = _at_least(q, quant_min) & _at_most(q, quant_max) if wide else (q >= low) & (q <= high)
        clip = np.where(q < low, low, np.where(q > high, high, q))  # a zero keeps its sign here
        clip = np.where(np.isnan(q), low if how.nan == "quant_min" else high, clip)
        out = ((clip - z.astype(precision)) * s.astype(precision)).astype(f32)
        out = out.astype(promoted).astype(f32).astype(out_dtype or x.dtype)
    return np.asarray(out), np.asarray(mask)


def straight_through(grad: ArrayLike, mask: ArrayLike) -> NDArray[np.floating]:
    """Gradient of fake quantization: ``grad * mask``, in grad's dtype.

    Parameters
    ----------
    grad : array_like
        Of the result; float32 or float16, any shape.
    mask : array_like
        bool, of grad's shape.

    Notes
    -----
    Formula: ``aten::fake_quantize_per_channel_affine_cachemask_backward``.
    """
    grad = np.asarray(grad)
    with np.errstate(all="ignore"):
        product: NDArray[np.floating] = grad * np.asarray(mask).astype(grad.dtype)
    return product


def quotient_gradient(
    quotient: ArrayLike, grad: ArrayLike, divisor: ArrayLike, axis: int, sum_lanes: int = 8
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gradient of ``x / divisor``, with a divisor for each channel.

    Parameters
    ----------
    quotient, grad : array_like
        float32, of one shape: ``x / divisor``, and its gradient.
    divisor : array_like
        float32, shape (quotient.shape[axis],).
    axis : int
        Channel dimension, negative counts from the end.
    sum_lanes : int
        See :func:`sum_of_rows`.

    Returns
    -------
    by_x : numpy.ndarray
        float32, the quotient's shape.
    by_divisor : numpy.ndarray
        float32, the divisor's shape.

    Notes
    -----
    Formula: ``div_tensor_self_backward`` and ``div_tensor_other_grad`` of torch, float32 at each step; the latter
    divides x by the divisor again, which gives the quotient.
    """
    quotient, grad, divisor = (np.asarray(each, np.float32) for each in (quotient, grad, divisor))
    each = divisor.reshape([-1 if d == axis % quotient.ndim else 1 for d in range(quotient.ndim)])
    with np.errstate(all="ignore"):
        summands = -grad * (quotient / each)
        rows = summands.reshape(math.prod(summands.shape[: axis % quotient.ndim]), len(divisor), -1)
        return grad / each, sum_of_rows(rows, sum_lanes)


def sum_of_rows(values: NDArray[np.float32], sum_lanes: int = 8) -> NDArray[np.float32]:
    """Sum rows, and the sums of rows of a channel, in float32 and in torch's order.

    Parameters
    ----------
    values : numpy.ndarray
        float32, shape (outer, channels, inner).
    sum_lanes : int
        Elements of a vector of torch's sum: 8 on x86-64, 4 on aarch64 without SVE.  Of shorter rows it takes one.

    Returns
    -------
    numpy.ndarray
        float32, shape (channels,).

    Notes
    -----
    Formula: ``cascade_sum`` of torch, for a tensor (outer, channels, ...) summed over all but its channels, rows of two
    elements and more, and more channels than one; of one channel all is a row here.  A row is taken in vectors, four
    sums of these side by side; after 16 steps a sum is added to that of the next level and begins anew.
    """
    if values.shape[1] == 1:
        values = values.reshape(1, 1, -1)
    outer, channels, inner = values.shape
    sum_lanes = sum_lanes if inner >= sum_lanes else 1
    wide = sum_lanes * SUM_VECTORS
    chunks = inner // wide
    levels = np.zeros((4, outer, channels, wide), np.float32)
    for step in range(chunks):
        levels[0] += values[:, :, step * wide : (step + 1) * wide]
        for level in range(3):
            if (step + 1) % SUM_BLOCK ** (level + 1):
                break
            levels[level + 1] += levels[level]
            levels[level] = 0
    for level in levels[1:]:
        levels[0] += level
    vectors = levels[0].reshape(outer, channels, SUM_VECTORS, sum_lanes)
    for start in range(chunks * wide, inner // sum_lanes * sum_lanes, sum_lanes):
        vectors[:, :, 0] += values[:, :, start : start + sum_lanes]
    for vector in range(1, SUM_VECTORS):
        vectors[:, :, 0] += vectors[:, :, vector]
    of_rows = np.zeros((outer, channels), np.float32)
    for i in range(inner // sum_lanes * sum_lanes, inner):
        of_rows += values[:, :, i]
    for lane in range(sum_lanes):
        of_rows += vectors[:, :, 0, lane]
    total = np.zeros(channels, np.float32)
    for row in of_rows:
        total += row
    return total


def learnable_gradient(
    x: ArrayLike, grad: ArrayLike, scale: ArrayLike, zero_point: ArrayLike, axis: int | None, *numbers: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Gradient of fake quantization by x, scale and zero point, where these are learned.

    Parameters
    ----------
    x, grad : array_like
        float32, of one shape: what was quantized, and the gradient of the result.
    scale, zero_point : array_like
        float32, shape (x.shape[axis],); without an axis one element, shape (1,).  The zero point is an integer within
        the range.
    axis : int or None
        Channel dimension, negative counts from the end.
    *numbers : float
        quant_min and quant_max, at most ``2**23`` in magnitude; the factor of the gradients by scale and zero point.

    Returns
    -------
    by_x : numpy.ndarray
        float32, x's shape.
    by_scale, by_zero_point : numpy.ndarray
        float32, scale's shape; summed up in float64.

    Notes
    -----
    Formula: ``aten::_fake_quantize_learnable_per_channel_affine_backward`` as it is built for CPUs with fused
    operations: the sum of a product and the zero point is rounded once.
    """
    f32 = np.float32
    x, grad, scale, zero_point = (np.asarray(each, f32) for each in (x, grad, scale, zero_point))
    low, high, factor = map(f32, numbers)
    shape = [1] * x.ndim
    if axis is not None:
        shape[axis] = -1
    s, z = scale.reshape(shape), zero_point.reshape(shape)
    with np.errstate(all="ignore"):
        q = np.rint(_fused(x, f32(1) / s, z))
        inside = (q >= low) & (q <= high)
        steps = np.where(q > high, high, np.where(inside, q, low)) - z
        by_x = grad * inside.astype(f32)
        by_scale = np.where(inside, grad * _fused(steps, s, -x) * (f32(1) / s), grad * steps) * factor
        by_zero_point = np.where(inside, f32(0), -grad * s * factor)
        others = tuple(d for d in range(x.ndim) if axis is None or d != axis % x.ndim)
        sums = [each.sum(others, np.float64).astype(f32).reshape(scale.shape) for each in (by_scale, by_zero_point)]
    return by_x, sums[0], sums[1]


def _fused(a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
    """``a * b + c``, rounded once to float32."""
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)  # exact
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    # Rounded to the neighbor whose last bit is set, a float64 has bits enough to be rounded a second time.
    even = (total.view(np.int64) & 1) == 0
    odd = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    exact = np.isfinite(total) & (error != 0) & even
    return np.where(exact, odd, total).astype(np.float32)


def channel_range(x: ArrayLike, axis: int | None) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Least and greatest element of each channel, or of the tensor; both NaN where there is a NaN.

    Parameters
    ----------
    x : array_like
        float32, float16 or bfloat16 (of ml_dtypes), any shape.
    axis : int or None
        Channel dimension, negative counts from the end; 0 or -1 for a 0-dimensional x.  None for the whole tensor.

    Returns
    -------
    least, greatest : numpy.ndarray
        x's dtype, shape (x.shape[axis],); without an axis ().

    Notes
    -----
    As ``torch.aminmax``, but that -0.0 is less than 0.0.
    """
    x = np.asarray(x)
    rows = x.reshape(1, -1) if axis is None or not x.ndim else np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    # The least of what orders as floats do, and zeros by their sign; a NaN lies beyond an infinity.
    bits = rows.view(f"i{x.itemsize}")
    ordered = np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)
    found = [each.reshape(-1, 1) for each in (ordered.argmin(axis=1), ordered.argmax(axis=1))]
    nan = np.isnan(rows).any(axis=1)
    shape = () if axis is None else (len(rows),)
    least, greatest = (np.where(nan, x.dtype.type(np.nan), np.take_along_axis(rows, at, 1)[:, 0]) for at in found)
    return np.asarray(least).astype(x.dtype).reshape(shape), np.asarray(greatest).astype(x.dtype).reshape(shape)


def _at_most(q: NDArray[np.float64], bound: int) -> NDArray[np.bool_]:
    """``q <= bound`` as integers: a float64 may be above an int64 that rounds to it."""
    limit = float(bound)
    return q <= (limit if int(limit) <= bound else math.nextafter(limit, -math.inf))


def _at_least(q: NDArray[np.float64], bound: int) -> NDArray[np.bool_]:
    """``q >= bound`` as integers."""
    limit = float(bound)
    return q >= (limit if int(limit) >= bound else math.nextafter(limit, math.inf))


def observed_parameters(
    current: tuple[ArrayLike, ArrayLike] | None,
    running: tuple[ArrayLike, ArrayLike],
    constant: float,
    quant_min: int,
    quant_max: int,
    symmetric: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]] | None:
    """Moving averages of the range of each channel, and the scale and zero point that follow.

    Parameters
    ----------
    current : tuple of array_like, or None
        float32, shape (channels,): least and greatest element of each channel; None if there is nothing new.
    running : tuple of array_like
        float32, shape (channels,): their moving averages so far; an infinity where there is none yet.
    constant : float
        Weight of what is current; taken as a float32.
    quant_min, quant_max : int
        The range of integers, at least two wide, of at most ``2**23`` in magnitude.
    symmetric : bool
        Whether a range around zero is made symmetric first, with the zero point in the middle.

    Returns
    -------
    least, greatest : numpy.ndarray
        float32, shape (channels,): the moving averages.
    scale : numpy.ndarray
        float32, shape (channels,).
    zero_point : numpy.ndarray
        int32, shape (channels,).

        None in the place of all four if an average is not finite, or the least above the greatest.

    Notes
    -----
    Formula: ``calculate_moving_average`` of torch's ``FusedObsFakeQuant.cpp``, and ``ChooseQuantizationParams`` of its
    ``ATen/native/quantized/cpu/QuantUtils.h``, which is that of FBGEMM; their float32 and float64 steps are the same
    here.
    """
    f32, least_scale = np.float32, np.float32(LEAST_SCALE)
    low, high = (np.asarray(bound, f32) for bound in running)
    with np.errstate(all="ignore"):
        if current is not None:
            both = zip((low, high), (np.asarray(bound, f32) for bound in current), strict=True)
            low, high = (np.where(np.isinf(r), c, r + f32(constant) * (c - r)) for r, c in both)
        if not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
            return None
        averages = low, high
        around = (low < 0) & (high > 0) if symmetric else np.zeros(low.shape, bool)
        half = (quant_max - quant_min) // 2
        step = np.maximum(np.abs(low / f32(half + 1)), np.abs(high / f32(half)))
        low = np.minimum(np.where(around, step * -f32(half + 1), low), f32(0))
        high = np.maximum(np.where(around, step * f32(half), high), f32(0))
        scale = (high.astype(np.float64) - low) / (quant_max - quant_min)
        single = scale.astype(f32)
        scale = np.where((single == 0) | np.isinf(f32(1) / single), NO_SCALE, scale)
        small = scale < least_scale
        # an end that is zero stays so, as torch would have it
        factor, reach = least_scale / single, least_scale * f32(quant_max - quant_min)
        low, high = (
            np.where(small, np.where(other == 0, end, np.where(this == 0, f32(0), this * factor)), this)
            for this, other, end in ((low, high, -reach), (high, low, reach))
        )
        scale = np.where(small, least_scale, scale)
        below, above = low / scale, high / scale
        nearer = abs(quant_min) - np.abs(below) < abs(quant_max) - np.abs(above)
        zero_point = np.where(nearer, quant_min - below, quant_max - above)
        zero_point = np.where(around & (low < 0) & (high > 0), (quant_min + quant_max) / 2, zero_point)
        zero_point = np.rint(np.clip(zero_point, quant_min, quant_max))
        return *averages, scale.astype(f32), zero_point.astype(np.int32)


def folded_weights(
    weight: ArrayLike,
    normalization: tuple[ArrayLike, ArrayLike],
    running: tuple[ArrayLike, ArrayLike],
    observes: bool,
    *how: Any,
) -> tuple[Any, ...] | None:
    """Multiply weights by batch norm's factor of each channel, observe them and fake-quantize them.

    Parameters
    ----------
    weight : array_like
        float32, shape (channels, ...).
    normalization : tuple of array_like
        float32, shape (channels,): batch norm's weight gamma, and sigma, the root of its variance.
    running : tuple of array_like
        See :func:`observed_parameters`.
    observes : bool
        Whether the range of the product is taken in.
    *how
        ``constant``, ``quant_min``, ``quant_max`` and ``symmetric`` of :func:`observed_parameters`.

    Returns
    -------
    out, mask : numpy.ndarray
        The weight's shape, float32 and bool.
    factor : numpy.ndarray
        float32, shape (channels,): what the weights were multiplied with, ``gamma / sigma``.
    least, greatest, scale, zero_point : numpy.ndarray
        As of :func:`observed_parameters`.

        None in the place of all if that gives none.

    Notes
    -----
    Formula: the beginning of ``_ConvBnNd._forward_approximate`` of ``torch.ao.nn.intrinsic.qat``, but for sigma: roots
    of torch's are not always the nearest float32.
    """
    weight, gamma, sigma = (np.asarray(each, np.float32) for each in (weight, *normalization))
    with np.errstate(all="ignore"):
        factor = gamma / sigma
        scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    parameters = observed_parameters(channel_range(scaled, 0) if observes else None, running, *how)
    if parameters is None:
        return None
    _, quant_min, quant_max, _ = how
    return *fake_quant(scaled, *parameters[2:], 0, quant_min, quant_max), factor, *parameters


def folded_weights_gradient(
    weight: ArrayLike,
    grad: ArrayLike,
    mask: ArrayLike,
    vectors: tuple[ArrayLike, ArrayLike, ArrayLike],
    sum_lanes: int = 8,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gradient of :func:`folded_weights`, by the weights and by batch norm's weight.

    Parameters
    ----------
    weight, grad, mask : array_like
        float32, float32 and bool, shape (channels, ...): the weights, the gradient of the result, and its mask.
    vectors : tuple of array_like
        float32, shape (channels,): factor, sigma, and the gradient by factor that comes another way.
    sum_lanes : int
        See :func:`sum_of_rows`.

    Returns
    -------
    by_weight : numpy.ndarray
        float32, the weight's shape.
    by_gamma : numpy.ndarray
        float32, shape (channels,).

    Notes
    -----
    Formula: what torch's autograd makes of a product, :func:`straight_through`, and the quotient ``gamma / sigma``;
    float32 at each step.
    """
    weight, grad = np.asarray(weight, np.float32), np.asarray(grad, np.float32)
    factor, sigma, by_factor = (np.asarray(vector, np.float32) for vector in vectors)
    with np.errstate(all="ignore"):
        straight = straight_through(grad, mask)
        by_factor = by_factor + sum_of_rows((straight * weight).reshape(1, len(weight), -1), sum_lanes)
        return straight * factor.reshape(-1, *[1] * (weight.ndim - 1)), by_factor / sigma


def folded_norm(
    x: ArrayLike,
    vectors: tuple[ArrayLike, ArrayLike, ArrayLike],
    running: tuple[ArrayLike, ArrayLike],
    momentum: float,
    epsilon: float,
) -> tuple[NDArray[np.float32], ...]:
    """Divide by a divisor of each channel, and do what batch norm does in training.

    Parameters
    ----------
    x : array_like
        float32, shape (outer, channels, ...), more than one element of each channel.
    vectors : tuple of array_like
        float32, shape (channels,): divisor, and batch norm's weight and bias.
    running : tuple of array_like
        float32, shape (channels,): running mean and variance.
    momentum : float
        Weight of what is current.
    epsilon : float
        What is added to a variance.

    Returns
    -------
    running_mean, running_var : numpy.ndarray
        float32, shape (channels,): moved.
    quotient, out : numpy.ndarray
        float32, x's shape.
    mean, inverse : numpy.ndarray
        float32, shape (channels,): of the quotient, and one over its deviation.

    Notes
    -----
    Formula: ``aten::native_batch_norm`` of contiguous float32, as it is built for CPUs with fused operations: sums are
    of float64, in the order of memory, one channel at a time; the variance moves, and the result is made, by a product
    and a sum that are rounded once.
    """
    f32, f64 = np.float32, np.float64
    x, divisor, gamma, beta, running_mean, running_var = (np.asarray(v, f32) for v in (x, *vectors, *running))
    each = (-1, *[1] * (x.ndim - 2))
    with np.errstate(all="ignore"):
        quotient = x / divisor.reshape(each)
        rows = np.moveaxis(quotient, 1, 0).reshape(len(divisor), -1)
        count = rows.shape[1]
        mean = ((np.cumsum(rows, 1, f64)[:, -1] + 0.0) / count).astype(f32)  # the sum begins with 0.0
        centered = rows - mean[:, None]
        squares = np.cumsum(centered * centered, 1, f64)[:, -1].astype(f32)
        variance = (squares / f32(count)).astype(f64)
        inverse = np.where((variance == 0) & (epsilon == 0), 0, 1 / np.sqrt(variance + epsilon)).astype(f32)
        new, old = f32(momentum), f32(1) - f32(momentum)
        running_mean = new * mean + old * running_mean
        running_var = _fused(np.broadcast_to(new, mean.shape), squares / f32(count - 1), old * running_var)
        linear = inverse * gamma
        constant = _fused(-mean, linear, beta)
        out = _fused(quotient, *(np.broadcast_to(v.reshape(each), x.shape) for v in (linear, constant)))
    return running_mean, running_var, quotient, out, mean, inverse


def folded_norm_gradient(
    quotient: ArrayLike, grad: ArrayLike, vectors: tuple[ArrayLike, ...], sum_lanes: int = 8
) -> tuple[NDArray[np.float32], ...]:
    """Gradient of :func:`folded_norm`.

    Parameters
    ----------
    quotient, grad : array_like
        float32, shape (outer, channels, ...): what was normalized, and the gradient of what came of it.
    vectors : tuple of array_like
        float32, shape (channels,): divisor, batch norm's weight, and the quotient's mean and one over its deviation.
    sum_lanes : int
        Elements of a vector of torch's sums, see :func:`sum_of_rows`.

    Returns
    -------
    by_x : numpy.ndarray
        float32, the quotient's shape.
    by_divisor, by_gamma, by_beta : numpy.ndarray
        float32, shape (channels,).

    Notes
    -----
    Formula: ``aten::native_batch_norm_backward`` of contiguous float32, as it is built for CPUs with fused operations,
    and :func:`quotient_gradient` of what that gives.  Its sums of a row are of float32, in vectors, of which the
    elements behind the last whole one are added to the first lanes, there with a product that is not rounded; then half
    of the lanes is added to the other half, and so on.  A row shorter than a vector is summed in order.  Sums of rows
    are of float64.
    """
    f32 = np.float32
    quotient, grad = (np.asarray(each, f32) for each in (quotient, grad))
    divisor, gamma, mean, inverse = (np.asarray(each, f32) for each in vectors)
    shape = quotient.shape[0], len(divisor), -1
    x, dy = quotient.reshape(shape), grad.reshape(shape)
    with np.errstate(all="ignore"):
        centered = x - mean[:, None]
        sums = [np.zeros(len(divisor)) for _ in range(2)]
        for row, of_centered in zip(dy, centered, strict=True):
            for total, each in zip(sums, _reduced(row, of_centered, sum_lanes), strict=True):
                total += each
        total, dot = sums
        count = x.size // len(divisor)
        slope = dot.astype(f32) * inverse * inverse / f32(count)
        offset = (total / count).astype(f32)
        straight = _fused(-centered, np.broadcast_to(slope[:, None], x.shape), dy - offset[:, None])
        by_quotient = straight * inverse[:, None] * gamma[:, None]
        by_gamma, by_beta = (dot * inverse).astype(f32), total.astype(f32)
    by_x, by_divisor = quotient_gradient(quotient, by_quotient.reshape(quotient.shape), divisor, 1, sum_lanes)
    return by_x, by_divisor, by_gamma, by_beta


def _reduced(
    values: NDArray[np.float32], factors: NDArray[np.float32], sum_lanes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sum rows of values, and of their products with factors, as ``vec::reduce_all`` and ``map2_reduce_all`` do."""
    inner = values.shape[1]
    lanes = sum_lanes if inner >= sum_lanes else 1
    plain, dot = values[:, :lanes].copy(), factors[:, :lanes] * values[:, :lanes]
    whole = inner // lanes * lanes
    for start in range(lanes, whole, lanes):
        at = slice(start, start + lanes)
        plain, dot = plain + values[:, at], dot + factors[:, at] * values[:, at]
    plain[:, : inner - whole] += values[:, whole:]
    dot[:, : inner - whole] = _fused(factors[:, whole:], values[:, whole:], dot[:, : inner - whole])
    while lanes > 1:
        lanes //= 2
        plain, dot = (each[:, :lanes] + each[:, lanes:] for each in (plain, dot))
    return plain[:, 0], dot[:, 0]
