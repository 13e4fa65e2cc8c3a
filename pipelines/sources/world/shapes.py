"""Where a ray meets a solid, which way its surface faces there, and how far the solid reaches.

Every solid stands at the origin of its own coordinates, about one unit in radius; y is its axis.
Rays are `o + t d` with components as tuples of arrays; a ray that misses has t = inf.
"""

import numpy as np

CLASSES = ("ball", "cube", "cylinder", "cone", "octahedron", "ring", "dumbbell", "cross")
BALL, CUBE, CYLINDER, CONE, OCTAHEDRON, RING, DUMBBELL, CROSS = range(8)
# Solids that roll when they lie on their side; the others slide.
ROLLERS = (BALL, CYLINDER, RING, DUMBBELL)

CUBE_HALF = 0.78
CYLINDER_RADIUS, CYLINDER_HALF = 0.68, 0.82
CONE_RADIUS, CONE_BASE, CONE_APEX = 0.95, -0.65, 1.15
OCTAHEDRON_REACH = 1.2
RING_MAJOR, RING_MINOR = 0.78, 0.3
DUMBBELL_AT, DUMBBELL_RADIUS, DUMBBELL_BAR = 0.72, 0.48, 0.2
CROSS_ARM, CROSS_HALF = 1.05, 0.3
# Radius of the sphere around the origin that holds each solid.
BOUND = (1.0, 1.36, 1.08, 1.16, 1.2, 1.08, 1.2, 1.14)
TRACE_STEPS = 14  # of sphere tracing; the ring alone needs it
_FACES = ((1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1))


def _quadratic(a, b, c):
    """Both roots of a t^2 + 2 b t + c, NaN-free; `miss` where there are none."""
    discriminant = b * b - a * c
    miss = discriminant < 0
    root = np.sqrt(np.maximum(discriminant, 0))
    return (-b - root) / a, (-b + root) / a, miss


def _slab(o, d, *halves):
    """Where a ray enters and leaves the slab from -half to half, for each of `halves`."""
    inverse = 1 / np.where(np.abs(d) < 1e-6, np.float32(1e-6), d)
    middle, length = -o * inverse, np.abs(inverse)
    reaches = [half * length for half in halves]
    return [(middle - reach, middle + reach) for reach in reaches]


def _sphere(o, d, radius, y=0.0):
    oy = o[1] - y
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = o[0] * d[0] + oy * d[1] + o[2] * d[2]
    near, _, miss = _quadratic(a, b, o[0] * o[0] + oy * oy + o[2] * o[2] - radius**2)
    return np.where(miss, np.inf, near)


def _box(x, y, z):
    """The box that three slabs have in common."""
    near = np.maximum(np.maximum(x[0], y[0]), z[0])
    far = np.minimum(np.minimum(x[1], y[1]), z[1])
    return np.where(near > far, np.inf, near)


def _tube(o, d, radius, half):
    a = np.maximum(d[0] * d[0] + d[2] * d[2], 1e-9)
    b = o[0] * d[0] + o[2] * d[2]
    near, far, miss = _quadratic(a, b, o[0] * o[0] + o[2] * o[2] - radius**2)
    ((low, high),) = _slab(o[1], d[1], half)
    near, far = np.maximum(near, low), np.minimum(far, high)
    return np.where(miss | (near > far), np.inf, near)


def _cone(o, d):
    slope2 = (CONE_RADIUS / (CONE_APEX - CONE_BASE)) ** 2
    below = CONE_APEX - o[1]
    a = d[0] * d[0] + d[2] * d[2] - slope2 * d[1] * d[1]
    a = np.where(np.abs(a) < 1e-6, np.float32(1e-6), a)
    b = o[0] * d[0] + o[2] * d[2] + slope2 * below * d[1]
    first, second, miss = _quadratic(a, b, o[0] * o[0] + o[2] * o[2] - slope2 * below * below)
    t = np.full(d[0].shape, np.inf, np.float32)
    for root in (first, second):
        y = o[1] + root * d[1]
        t = np.where(~miss & (y >= CONE_BASE) & (y <= CONE_APEX) & (root < t), root, t)
    base = (CONE_BASE - o[1]) / np.where(np.abs(d[1]) < 1e-6, np.float32(1e-6), d[1])
    x, z = o[0] + base * d[0], o[2] + base * d[2]
    return np.where((x * x + z * z <= CONE_RADIUS**2) & (base < t), base, t)


def _octahedron(o, d):
    near, far = None, None
    for sx, sy, sz in _FACES:
        ((low, high),) = _slab(
            sx * o[0] + sy * o[1] + sz * o[2],
            sx * d[0] + sy * d[1] + sz * d[2],
            OCTAHEDRON_REACH,
        )
        near = low if near is None else np.maximum(near, low)
        far = high if far is None else np.minimum(far, high)
    return np.where(near > far, np.inf, near)


def _torus(o, d):
    start = _sphere(o, d, RING_MAJOR + RING_MINOR)
    miss = np.isinf(start)
    speed = 1 / np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    t = np.where(miss, 0, start).astype(np.float32)
    for step in range(TRACE_STEPS):
        x, y, z = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
        across = np.sqrt(x * x + z * z) - RING_MAJOR
        distance = np.sqrt(across * across + y * y) - RING_MINOR
        if step < TRACE_STEPS - 1:
            t = t + distance * speed
    return np.where(miss | (distance > 0.03), np.inf, t)


def intersect(kind, o, d):
    """The first t at which rays enter solid `kind`, float32, inf for a miss."""
    if kind == BALL:
        t = _sphere(o, d, 1.0)
    elif kind == CUBE:
        t = _box(*(_slab(o[i], d[i], CUBE_HALF)[0] for i in range(3)))
    elif kind == CYLINDER:
        t = _tube(o, d, CYLINDER_RADIUS, CYLINDER_HALF)
    elif kind == CONE:
        t = _cone(o, d)
    elif kind == OCTAHEDRON:
        t = _octahedron(o, d)
    elif kind == RING:
        t = _torus(o, d)
    elif kind == DUMBBELL:
        t = _tube(o, d, DUMBBELL_BAR, DUMBBELL_AT)
        for y in (DUMBBELL_AT, -DUMBBELL_AT):
            t = np.minimum(t, _sphere(o, d, DUMBBELL_RADIUS, y))
    else:
        thin, long = zip(*(_slab(o[i], d[i], CROSS_HALF, CROSS_ARM) for i in range(3)))
        t = np.minimum(_box(long[0], *thin[1:]), _box(thin[0], long[1], thin[2]))
        t = np.minimum(t, _box(*thin[:2], long[2]))
    return t.astype(np.float32, copy=False)


def normal(kind, p):
    """The outward normal, of any length, at surface points `p` (a tuple of arrays)."""
    x, y, z = p
    if kind == BALL:
        return p
    if kind == CUBE:  # a high power of the place rounds the edges a little
        inside = [np.clip(c, -1, 1) for c in p]  # what missed may lie anywhere
        return tuple((c * c) ** 8 * c for c in inside)
    if kind == CYLINDER:
        cap = np.abs(y) / CYLINDER_HALF > np.sqrt(x * x + z * z) / CYLINDER_RADIUS
        return np.where(cap, 0, x), np.where(cap, np.sign(y), 0), np.where(cap, 0, z)
    if kind == CONE:
        base = y < CONE_BASE + 0.01
        slope = CONE_RADIUS / (CONE_APEX - CONE_BASE)
        radius = np.sqrt(x * x + z * z)
        return np.where(base, 0, x), np.where(base, -1, radius * slope), np.where(base, 0, z)
    if kind == OCTAHEDRON:
        return tuple(np.sign(c) for c in p)
    if kind == RING:
        shrink = 1 - RING_MAJOR / np.maximum(np.sqrt(x * x + z * z), 1e-3)
        return x * shrink, y, z * shrink
    if kind == DUMBBELL:
        from_centre = np.abs(y) - DUMBBELL_AT
        on_bar = x * x + z * z + from_centre * from_centre > (DUMBBELL_RADIUS + 0.02) ** 2
        return x, np.where(on_bar, 0, np.sign(y) * from_centre), z
    off = []
    for c in p:
        size = np.abs(c)
        off.append(np.minimum(np.abs(size - CROSS_ARM), np.abs(size - CROSS_HALF)))
    nearest = np.minimum(np.minimum(off[0], off[1]), off[2])
    return tuple(np.where(o <= nearest, np.sign(c), 0) for o, c in zip(off, p))


def support(kind, direction):
    """max over the solid of p . direction: how far it reaches that way; three floats in."""
    x, y, z = direction
    flat, length = np.hypot(x, z), np.sqrt(x * x + y * y + z * z)
    if kind == BALL:
        return length
    if kind == CUBE:
        return CUBE_HALF * (abs(x) + abs(y) + abs(z))
    if kind == CYLINDER:
        return CYLINDER_RADIUS * flat + CYLINDER_HALF * abs(y)
    if kind == CONE:
        return max(CONE_APEX * y, CONE_BASE * y + CONE_RADIUS * flat)
    if kind == OCTAHEDRON:
        return OCTAHEDRON_REACH * max(abs(x), abs(y), abs(z))
    if kind == RING:
        return RING_MAJOR * flat + RING_MINOR * length
    if kind == DUMBBELL:
        return DUMBBELL_AT * abs(y) + DUMBBELL_RADIUS * length
    total = abs(x) + abs(y) + abs(z)
    return CROSS_HALF * total + (CROSS_ARM - CROSS_HALF) * max(abs(x), abs(y), abs(z))
