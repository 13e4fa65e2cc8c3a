"""Ray casting of many views at once in NumPy: colours, and geometry at the pixel centres.

A view is one scene at one instant through one eye. The background is shaded once a pixel with
textures that are band-limited analytically; objects are cast with four rays a pixel inside the
square that holds their bounding sphere, plus one through the pixel's centre for ground truth.
Only element-wise operations touch pixels, so a view does not depend on what it is batched with.
Pixel (x, y) has its centre at the coordinates x, y: column x, row y.
"""

from types import SimpleNamespace

import numpy as np

from tfssl.pipelines.sources.world.scene import PLATFORM
from tfssl.pipelines.sources.world.shapes import intersect, normal

_SUB = np.array([[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]], np.float32)
_CROPS = (8, 12, 16, 20, 26, 32, 40, 52, 64)  # in 64ths of the image: sizes rendered together
_F = np.float32
SKY, BOUNCE_LIGHT = 0.62, 0.22  # ambient light from above and how much less from below
DIM = 0.1  # taken from all light on objects, so that they stand out from their ground
SHADOW = 0.5
HAIR = 1e-3  # metres
MATT = 0.3  # less shine than this is not worth its cost


def gather(scenes, times):
    """Stack what all views need: V = scenes x times, in that order. Poses stay float64."""
    steps = len(times)
    views = SimpleNamespace(scene=np.repeat(np.arange(len(scenes)), steps), scenes=scenes)
    rows = [thing for scene in scenes for thing in scene.things]
    centres = np.zeros((len(rows), steps, 3))
    turns = np.broadcast_to(np.eye(3), (len(rows), steps, 3, 3)).copy()
    for row, thing in enumerate(rows):
        if thing is not None:
            centres[row], turns[row] = thing.pose(times)
    count = len(scenes[0].things)
    views.centre = (
        centres.reshape(len(scenes), count, steps, 3).swapaxes(1, 2).reshape(-1, count, 3)
    )
    views.turn = turns.reshape(len(scenes), count, steps, 3, 3).swapaxes(1, 2)
    views.turn = views.turn.reshape(-1, count, 3, 3)
    cameras = [scene.camera(times) for scene in scenes]
    views.rotation = np.concatenate([rotation for rotation, _ in cameras])
    views.eye = np.concatenate([eye for _, eye in cameras])
    views.focal = np.repeat([scene.focal for scene in scenes], steps)
    return views


def right_eye(views, baseline):
    """The same views from `baseline` metres further along each camera's x axis."""
    other = SimpleNamespace(**vars(views))
    other.eye = views.eye + baseline * views.rotation[:, :, 0]
    return other


def _per_view(views, of):
    return np.stack([np.asarray(of(scene), _F) for scene in views.scenes])[views.scene]


def _rays(views, size):
    """World directions with unit depth as columns and rows: d_i = a_i x + (b_i y + c_i)."""
    focal = (views.focal * size)[:, None]
    middle = (size - 1) / 2
    a, b = views.rotation[:, :, 0] / focal, views.rotation[:, :, 1] / focal
    c = views.rotation[:, :, 2] - middle * (a + b)
    return a, b, c


def _linear(a, b, c, size):
    """a x + b y + c over the image; a, b, c float64 [V] -> float32 [V, size, size]."""
    at = np.arange(size)
    columns, rows = np.outer(a, at), np.outer(b, at) + c[:, None]
    return columns.astype(_F)[:, None, :] + rows.astype(_F)[:, :, None]


def _planes(views, size):
    """Inverse depths of ground and wall, both linear in the pixel, and their difference."""
    a, b, c = _rays(views, size)
    to_wall, height = -wall_distance(views)[:, None], views.eye[:, 1:2]
    ground = np.stack([-a[:, 1], -b[:, 1], -c[:, 1]], 1) / height
    wall = np.stack([a[:, 2], b[:, 2], c[:, 2]], 1) / to_wall
    return ground, wall


def _background(views, size):
    """Colour float32 [V, H, W, 3] and depth [V, H, W] of ground and wall."""
    lines = _rays(views, size)
    ground, wall = _planes(views, size)
    q_ground, q_wall = _linear(*ground.T, size), _linear(*wall.T, size)
    edge = ground - wall
    steep = np.maximum(np.hypot(edge[:, 0], edge[:, 1]), 1e-9).astype(_F)[:, None, None]
    cover = np.clip(0.5 + (q_ground - q_wall) / steep, 0, 1)
    depth = 1 / np.maximum(q_ground, q_wall)
    d = [_linear(*(part[:, i] for part in lines), size) for i in range(3)]
    eye = views.eye.astype(_F)[:, :, None, None]
    x = eye[:, 0] + depth * d[0]
    y = eye[:, 1] + depth * d[1]
    z = eye[:, 2] + depth * d[2]

    pixel = (1 / (views.focal * size)).astype(_F)[:, None, None]  # metres at one metre
    across, along = depth * pixel, depth * depth * pixel / eye[:, 1]
    first = int(np.argmax(cover.any((0, 2))))  # rows above hold no ground, in any view
    last = size - int(np.argmax((cover < 1).any((0, 2))[::-1]))  # rows below hold no wall
    if (cover >= 1).all():
        last = 0
    low, high = slice(first, size), slice(0, last)
    floor = _texture(views, "ground", x[:, low], z[:, low], across[:, low], along[:, low])
    floor *= (1 - _shadows(views, x[:, low], z[:, low]))[..., None]
    far = (wall_distance(views) / (views.focal * size)).astype(_F)[:, None, None]
    back = _texture(views, "wall", x[:, high], y[:, high], far, far)
    fade = _per_view(views, lambda s: s.fade)[:, None, None]
    back *= (0.86 + fade * y[:, high])[..., None]
    # dimmer where ground and wall meet
    corner = np.exp(-np.abs(z - _per_view(views, lambda s: s.wall_z)[:, None, None]) - np.abs(y))
    colour = np.empty((*depth.shape, 3), _F)
    colour[:, high] = back
    colour[:, last:] = 0
    floor -= colour[:, low]
    floor *= cover[:, low, :, None]
    colour[:, low] += floor
    colour *= (1 - 0.25 * corner)[..., None]
    return colour, depth


def wall_distance(views):
    return views.eye[:, 2] - np.array([scene.wall_z for scene in views.scenes])[views.scene]


def _texture(views, name, x, y, across, along):
    """Five waves under two soft contrasts; waves near the pixel's size are filtered out."""
    planes = [getattr(scene, name) for scene in views.scenes]
    base = np.stack([p[0] for p in planes]).astype(_F)[views.scene]
    contrasts = np.stack([p[1] for p in planes]).astype(_F)[views.scene]
    waves = np.stack([p[2] for p in planes]).astype(_F)[views.scene]
    gain = np.array([p[3] for p in planes], _F)[views.scene][:, None, None]
    sharp, soft = 0, 0
    across2, along2 = _F(0.12) * across * across, _F(0.12) * along * along
    for i in range(5):
        kx, ky, phase = (waves[:, i, j][:, None, None] for j in range(3))
        wave = np.cos(kx * x + ky * y + phase)
        wave *= np.exp(-(kx * kx) * across2 - (ky * ky) * along2)
        if i < 3:
            sharp = sharp + wave
        else:
            soft = soft + wave
    # tanh without its cost
    sharp = gain * sharp
    sharp = sharp / np.sqrt(1 + sharp * sharp)
    out = np.empty((*x.shape, 3), _F)
    for i in range(3):
        scale = contrasts[:, :, i][:, :, None, None]
        out[..., i] = base[:, i][:, None, None] + scale[:, 0] * sharp + scale[:, 1] * soft
    return out


def _shadows(views, x, z):
    """Soft share of sunlight taken from the ground by each object, as a ball under a wide sun."""
    light = np.stack([scene.light for scene in views.scenes])[views.scene]
    shade = 0
    flat = np.hypot(light[:, 0], light[:, 2])
    sx, sz = light[:, 0] / flat, light[:, 2] / flat
    for row in range(views.centre.shape[1]):
        radius = np.array([
            0.0 if s.things[row] is None else 0.8 * s.things[row].radius for s in views.scenes
        ])[views.scene]  # fmt: skip
        if not radius.any():
            continue
        centre = views.centre[:, row]
        fall = centre[:, 1] / light[:, 1]
        at_x, at_z = centre[:, 0] - fall * light[:, 0], centre[:, 2] - fall * light[:, 2]
        size = np.maximum(radius, 1e-3)
        soften = 1 + 0.25 * np.maximum(centre[:, 1] - radius, 0)
        long = light[:, 1] / size / soften
        cross = 1 / size / soften
        u, v = (k.astype(_F)[:, None, None] for k in (sx * long, sz * long))
        p, q = (k.astype(_F)[:, None, None] for k in (-sz * cross, sx * cross))
        dx = x - at_x.astype(_F)[:, None, None]
        dz = z - at_z.astype(_F)[:, None, None]
        first, second = u * dx + v * dz, p * dx + q * dz
        squared = first * first + second * second
        dark = (SHADOW * (radius > 0) / soften).astype(_F)[:, None, None]
        shade = shade + dark / (1 + squared * squared * squared)
        # darker still where it touches
        near = 0.35 * (radius > 0) * np.exp(-3 * np.maximum(centre[:, 1] / size - 1, 0) ** 2)
        dx = x - centre[:, 0].astype(_F)[:, None, None]
        dz = z - centre[:, 2].astype(_F)[:, None, None]
        squared = (dx * dx + dz * dz) * (1.6 / (size * size)).astype(_F)[:, None, None]
        shade = shade + near.astype(_F)[:, None, None] / (1 + squared * squared)
    return np.minimum(shade, 0.75)


def _instances(views, size):
    """Visible objects as (view, row, thing), the squares that hold them, and how far they lie.

    A platform is as far as what it carries, row 0, and a hair behind it where it is seen from
    above: a plane parts the two.
    """
    offset = views.centre - views.eye[:, None]
    local = [(offset * views.rotation[:, None, :, i]).sum(-1) for i in range(3)]
    focal = views.focal * size
    found = []
    for view, scene in enumerate(views.scene):
        for row, thing in enumerate(views.scenes[scene].things):
            if thing is None:
                continue
            depth = local[2][view, row]
            if depth < thing.radius * 1.05:
                continue
            scale = focal[view] / depth
            reach = thing.radius * focal[view] / np.sqrt(depth**2 - thing.radius**2) * 1.08 + 1
            x = local[0][view, row] * scale + (size - 1) / 2
            y = local[1][view, row] * scale + (size - 1) / 2
            if not (-reach < x < size + reach and -reach < y < size + reach):
                continue
            wanted = 2 * reach + 1
            side = min(
                size, next((s * size // 64 for s in _CROPS if s * size // 64 >= wanted), size)
            )
            left = int(np.clip(np.floor(x - side / 2 + 0.5), 0, size - side))
            top = int(np.clip(np.floor(y - side / 2 + 0.5), 0, size - side))
            if thing.label == PLATFORM:
                above = views.eye[view, 1] > views.centre[view, row, 1] + thing.height()
                depth = local[2][view, 0] + (HAIR if above else -HAIR)
            found.append((view, row, thing, side, left, top, depth))
    return found


def _cast(views, group, kind, side, size, geometry, colours):
    """Colour [I, s, s, 3], cover [I, s, s] and depth [I, s, s] (inf outside) of one kind."""
    view = np.array([g[0] for g in group])
    row = np.array([g[1] for g in group])
    things = [g[2] for g in group]
    looks = [views.scenes[views.scene[g[0]]].looks[g[1]] for g in group]
    scale = np.stack([thing.scale for thing in things])
    turn = views.turn[view, row]
    into = np.swapaxes(turn, 1, 2) / scale[:, :, None]  # world to unit solid
    origin = ((views.eye[view] - views.centre[view, row])[:, None] * into).sum(-1)
    lines = []  # a, b, c of each local direction component
    for part in _rays(views, size):
        lines.append((part[view][:, None] * into).sum(-1))
    left, top = (np.array([g[i] for g in group], np.float64) for i in (4, 5))
    sub = [*_SUB] * colours + [np.zeros(2, _F)] * geometry
    sub_x, sub_y = (np.array([s[i] for s in sub]) for i in (0, 1))
    at = np.arange(side)
    xs = left[:, None, None] + sub_x[None, :, None] + at  # [I, R, s]
    ys = top[:, None, None] + sub_y[None, :, None] + at
    a, b, c = lines
    d = []
    for i in range(3):
        columns = (a[:, i, None, None] * xs).astype(_F)
        rows = (b[:, i, None, None] * ys + c[:, i, None, None]).astype(_F)
        d.append(columns[:, :, None, :] + rows[:, :, :, None])
    o = [origin[:, i].astype(_F)[:, None, None, None] for i in range(3)]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        t = intersect(kind, o, d)
    depth = t[:, -1] if geometry else None
    if not colours:
        return None, None, depth
    # Half of the rays and more pass by: only those that hit are shaded, in one flat array.
    hit = np.isfinite(t[:, :4])
    counts = np.count_nonzero(hit.reshape(len(group), -1), axis=1)
    to = np.flatnonzero(hit)
    at = to + np.repeat(np.arange(len(group)) * (t.shape[1] - 4) * side**2, counts)

    def spread(values):
        """Values [I] for the rays of each: one number where all are equal, as within a clip."""
        values = values.astype(_F)
        return values[0] if (values == values[0]).all() else np.repeat(values, counts)

    t = t.ravel().take(at)
    p = tuple(spread(origin[:, i]) + t * d[i].ravel().take(at) for i in range(3))
    wooden = np.flatnonzero(np.repeat([look[3] != 0 for look in looks], counts))
    glossy = np.flatnonzero(np.repeat([look[5] > MATT for look in looks], counts))
    shaded = _shade(views, view, row, looks, scale, turn, kind, p, spread, wooden, glossy)
    summed = np.empty((len(group), side, side, 3), _F)
    for i in range(3):
        samples = np.zeros(hit.shape, _F)
        samples.ravel()[to] = shaded[i] * _F(0.25)
        summed[..., i] = samples[:, 0] + samples[:, 1] + samples[:, 2] + samples[:, 3]
    return summed, hit.sum(1, dtype=_F) * _F(0.25), depth


def _shade(views, view, row, looks, scale, turn, kind, p, spread, wooden, glossy):
    """Colours, three arrays [N], of surface points `p` (a tuple of three [N]).

    `spread` brings values [I] of the instances to their rays; `wooden` and `glossy` are places
    among the rays.
    """
    n = normal(kind, p)
    n = [n[i] * spread(1 / scale[:, i]) for i in range(3)]
    squared = n[0] * n[0] + n[1] * n[1] + n[2] * n[2]
    length = 1 / np.sqrt(np.maximum(squared, _F(1e-12)))
    scene = views.scene[view]
    light = np.stack([views.scenes[s].light for s in scene])

    def along(vectors):  # dot products of world vectors [I, 3] with the unit normals
        v = (vectors[:, None] * np.swapaxes(turn, 1, 2)).sum(-1)
        out = n[0] * spread(v[:, 0])
        out += n[1] * spread(v[:, 1])
        out += n[2] * spread(v[:, 2])
        out *= length
        return out

    base, second, waves, rings, gain, shine, gloss = (
        np.stack([np.asarray(look[i], _F) for look in looks]) for i in range(7)
    )
    q = [p[i] * spread(1.5 * scale[:, i]) for i in range(3)]  # the pattern does not stretch
    pattern = 0
    for i in range(3):
        phase = q[0] * spread(waves[:, i, 0])
        phase += q[1] * spread(waves[:, i, 1])
        phase += q[2] * spread(waves[:, i, 2])
        phase += spread(waves[:, i, 3])
        pattern = pattern + np.cos(phase, out=phase)

    def some(values, places):  # as spread, for the rays at `places`
        values = spread(values)
        return values if values.ndim == 0 else values[places]

    if wooden.size:
        radius = np.sqrt(q[0][wooden] ** 2 + q[2][wooden] ** 2)
        grain = some(rings, wooden) * radius + _F(0.7) * pattern[wooden]
        pattern[wooden] = np.cos(grain)
    pattern *= spread(gain)
    mix = pattern / np.sqrt(1 + pattern * pattern)
    mix *= _F(0.5)
    mix += _F(0.5)
    sun = np.array([views.scenes[s].sun for s in scene])
    lit = along(light)
    np.maximum(lit, 0, out=lit)
    lit *= spread(sun)
    lit += _F(BOUNCE_LIGHT) * along(np.broadcast_to(np.array([0.0, 1.0, 0.0]), light.shape))
    lit += _F(SKY - BOUNCE_LIGHT - DIM)
    glint = np.zeros_like(lit)
    if glossy.size:
        toward = views.eye[view] - views.centre[view, row]
        toward /= np.sqrt((toward**2).sum(1, keepdims=True))
        half = light + toward
        half /= np.sqrt((half**2).sum(1, keepdims=True))
        facing = np.maximum(along(half)[glossy], _F(1e-6))
        facing = np.exp(np.log(facing) * some(gloss, glossy))
        glint[glossy] = facing * some(shine, glossy) * some(sun, glossy)
    out = []
    for i in range(3):
        colour = mix * spread(base[:, i] - second[:, i])
        colour += spread(second[:, i])
        colour *= lit
        colour += glint
        out.append(colour)
    return out


def render(views, size, colours=True, geometry=True):
    """Render all views: colour uint8 [V, H, W, 3], masks uint8 [V, H, W], depth float32 [V, H, W].

    What is not asked for is None.
    """
    picture, depth = _background(views, size) if colours else (None, None)
    masks = None
    if geometry:
        depth = background_depth(views, size) if depth is None else depth
        masks = np.zeros(depth.shape, np.uint8)
    found = _instances(views, size)
    groups = {}
    for number, instance in enumerate(found):
        groups.setdefault((instance[2].kind, instance[3]), []).append(number)
    crops = {}
    for (kind, side), members in groups.items():
        group = [found[i] for i in members]
        colour, cover, far = _cast(views, group, kind, side, size, geometry, colours)
        for i, number in enumerate(members):
            crops[number] = (
                None if colour is None else colour[i],
                None if cover is None else cover[i],
                None if far is None else far[i],
            )
    # the painter's way, far to near
    for number in sorted(range(len(found)), key=lambda i: -found[i][6]):
        view, row, _, side, left, top, _ = found[number]
        colour, cover, far = crops[number]
        window = (view, slice(top, top + side), slice(left, left + side))
        if colour is not None:
            picture[window] = picture[window] * (1 - cover)[..., None] + colour
        if far is not None:
            nearer = far < np.where(masks[window] == 0, np.inf, depth[window])
            np.copyto(depth[window], far, where=nearer)
            np.copyto(masks[window], row + 1, where=nearer)
    if picture is not None:
        np.clip(picture, 0, 1, out=picture)
        picture = (picture * 255 + 0.5).astype(np.uint8)
    return picture, masks, depth if geometry else None


def background_depth(views, size):
    ground, wall = _planes(views, size)
    return 1 / np.maximum(_linear(*ground.T, size), _linear(*wall.T, size))


def flow(views, masks, depth, size):
    """Flow float32 [V-1, H, W, 2] of one clip and where it stays in sight, bool [V-1, H, W].

    Every pixel's point moves with its object (or stays, for the background) and is seen again by
    the next frame's camera: p + flow(p) is where it lands.
    """
    steps = len(masks) - 1
    focal, middle = float(views.focal[0]) * size, (size - 1) / 2
    camera = np.zeros((steps, 3, 3))
    shift = np.zeros((steps, 3))
    at = np.arange(size, dtype=_F) - _F(middle)
    out = np.empty((steps, size, size, 2), _F)
    onward = np.empty((steps, size, size), _F)  # depth in the next frame
    rows = views.centre.shape[1]
    next_view = np.swapaxes(views.rotation[1:], 1, 2)
    for number in range(rows + 1):
        if number == 0:
            camera = next_view @ views.rotation[:-1]
            shift = (next_view @ (views.eye[:-1] - views.eye[1:])[..., None])[..., 0]
            where = None
        else:
            where = np.nonzero(masks[:-1] == number)
            if not where[0].size:
                continue
            moved = views.turn[1:, number - 1] @ np.swapaxes(views.turn[:-1, number - 1], 1, 2)
            offset = views.eye[:-1] - views.centre[:-1, number - 1]
            there = (moved @ offset[..., None])[..., 0] + views.centre[1:, number - 1]
            camera = next_view @ moved @ views.rotation[:-1]
            shift = (next_view @ (there - views.eye[1:])[..., None])[..., 0]
        matrix = camera.copy()
        matrix[:, :, :2] /= focal
        matrix, move = matrix.astype(_F), shift.astype(_F)
        if where is None:
            x, y, t = at[None, None, :], at[None, :, None], depth[:-1]
            m = matrix[:, :, :, None, None]
            v = move[:, :, None, None]
        else:
            x, y, t = at[where[2]], at[where[1]], depth[:-1][where]
            m, v = np.moveaxis(matrix[where[0]], 0, -1)[None], move[where[0]].T[None]
        local = [t * (m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2]) + v[:, i] for i in range(3)]
        scale = _F(focal) / np.maximum(local[2], _F(1e-3))
        u, w = local[0] * scale - x, local[1] * scale - y
        if where is None:
            out[..., 0], out[..., 1], onward[...] = u, w, local[2]
        else:
            out[(*where, 0)], out[(*where, 1)], onward[where] = u[0], w[0], local[2][0]
    return out, _in_sight(out, onward, masks, depth, size)


def _in_sight(moved, onward, masks, depth, size):
    """Whether the four pixels around each landing point show the same object at that depth."""
    grid = np.arange(size, dtype=_F)
    x, y = grid + moved[..., 0], grid[:, None] + moved[..., 1]
    inside = (x >= 0) & (x <= size - 1) & (y >= 0) & (y <= size - 1)
    x0 = np.clip(np.floor(x), 0, size - 2).astype(np.int64)
    y0 = np.clip(np.floor(y), 0, size - 2).astype(np.int64)
    frame = np.arange(1, len(masks))[:, None, None]
    corner = (frame * size + y0) * size + x0
    same, visible = masks.ravel(), inside
    for step in (0, 1, size, size + 1):
        visible = visible & (same.take(corner + step) == masks[:-1])
    nearest = (frame * size + np.clip(np.rint(y), 0, size - 1).astype(np.int64)) * size
    nearest += np.clip(np.rint(x), 0, size - 1).astype(np.int64)
    seen = depth.ravel().take(nearest)
    return visible & (np.abs(seen - onward) < 0.03 * onward + 0.02)


def boxes(masks, count):
    """Visible boxes float32 [V, n, 4] (ymin, xmin, ymax, xmax in 0..1) and ids int64 [V, n].

    The box and the id of an object that is not seen are zero.
    """
    size = masks.shape[1]
    found = np.zeros((len(masks), count, 4), _F)
    ids = np.zeros((len(masks), count), np.int64)
    for row in range(count):
        mine = masks == row + 1
        rows, columns = mine.any(2), mine.any(1)
        seen = rows.any(1)
        found[:, row, 0], found[:, row, 1] = rows.argmax(1), columns.argmax(1)
        found[:, row, 2] = size - rows[:, ::-1].argmax(1)
        found[:, row, 3] = size - columns[:, ::-1].argmax(1)
        found[:, row] *= (seen / size)[:, None]
        ids[:, row] = seen * (row + 1)
    return found, ids


__all__ = ["boxes", "flow", "gather", "render", "right_eye"]
