"""One scene: what stands in it and how everything moves, in closed form, from an index alone.

The world is right-handed, in metres: x right, y up, z towards the camera; the ground is y = 0.
Motion is a list of spans of constant acceleration per object, so that any instant can be asked
for, and impacts fall at their exact times between frames.
"""

import math
from typing import NamedTuple

import numpy as np

from tfssl.pipelines.sources.world.captions import ACTIONS, COLLIDES
from tfssl.pipelines.sources.world.shapes import (
    BALL,
    BOUND,
    CLASSES,
    CUBE,
    DUMBBELL,
    OCTAHEDRON,
    ROLLERS,
    support,
)

OBJECTS = 3  # the thing the label names, and up to two others (one may be a lifting platform)
GRAVITY = 9.81
FALLS, BOUNCES, ROLLS, SLIDES, _, RISES = range(len(ACTIONS))
PLATFORM = -1
#             wood  metal rubber stone plastic
RESTITUTION = (0.68, 0.66, 0.84, 0.60, 0.78)
FRICTION = (0.30, 0.20, 0.55, 0.40, 0.25)
SLIDING = 0.45  # share of the friction left when sliding, as if on a waxed floor
ROLLING_DRAG = 0.35  # m/s^2
COLLISION_RESTITUTION = 0.6
SPIN_FROM_FRICTION = 2.5  # 1 / (inertia of a solid ball in units of m r^2)
LIFT_SECONDS = 2.0  # then the platform stops
CAMERA_SECONDS = 2.0
ZOOM_LIMITS = (0.2, 3.0)  # of the first distance
TILT_LIMIT = 40.0  # degrees


class Impact(NamedTuple):
    seconds: float
    thing: int  # row of the object that sounds
    speed: float  # normal speed of the impact, m/s


class Span(NamedTuple):
    start: float
    place: tuple
    velocity: tuple
    acceleration: tuple
    angle: float
    rate: float
    slowing: float


def axis_rotations(axis, angles):
    """Rodrigues: rotations [T, 3, 3] by `angles` [T] about the unit vector `axis`."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    outer = np.array([[x * x, x * y, x * z], [x * y, y * y, y * z], [x * z, y * z, z * z]])
    c, s = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    return c * (np.eye(3) - outer) + s * cross + outer


def axis_rotation(axis, angle):
    """The same for one angle, as rows of floats: small arrays cost more than they compute."""
    x, y, z = axis
    c, s = math.cos(angle), math.sin(angle)
    t = 1 - c
    return (
        (t * x * x + c, t * x * y - s * z, t * x * z + s * y),
        (t * x * y + s * z, t * y * y + c, t * y * z - s * x),
        (t * x * z - s * y, t * y * z + s * x, t * z * z + c),
    )


def product(a, b):
    """a b for two 3 x 3 matrices as rows of floats."""
    return tuple(
        tuple(r[0] * b[0][j] + r[1] * b[1][j] + r[2] * b[2][j] for j in range(3)) for r in a
    )


EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
UP = (0.0, 1.0, 0.0)


class Thing:
    """An object: its looks, its size along its own axes, its first pose and its spans of motion."""

    def __init__(self, kind, material, colour, scale, label=None):
        self.kind, self.material, self.colour = kind, material, colour
        self.label = kind if label is None else label
        self.scale = scale
        self.radius = max(scale) * BOUND[kind]
        self.mass = scale[0] * scale[1] * scale[2]
        self.first, self.axis = EYE, UP
        self.rolls = False
        self.spans = []

    def reach(self, direction, angle=0.0):
        """How far the object extends along a world direction when turned by `angle`."""
        back = axis_rotation(self.axis, -angle)
        x, y, z = (sum(row[i] * direction[i] for i in range(3)) for row in back)
        first, scale = self.first, self.scale
        local = [scale[i] * (x * first[0][i] + y * first[1][i] + z * first[2][i]) for i in range(3)]
        return support(self.kind, local)

    def height(self, angle=0.0):
        """Height of its centre while it touches the ground."""
        return self.reach((0.0, -1.0, 0.0), angle)

    def lie(self, heading, yaw):
        """Rest on the ground: on its side across `heading` if it rolls, else upright."""
        if self.rolls:
            side = math.atan2(heading[0], heading[2])
            # its axis y goes to the horizontal direction across the heading
            lying = axis_rotation((1.0, 0.0, 0.0), math.pi / 2)
            self.first = product(axis_rotation(UP, side + math.pi / 2), lying)
            if self.kind == BALL:
                self.first = product(self.first, axis_rotation(UP, yaw))
            self.axis = (heading[2], 0.0, -heading[0])
        else:
            self.first = product(axis_rotation(UP, yaw), self.standing())
            self.axis = UP

    def standing(self):
        """A pose at rest: an octahedron on a face, a dumbbell along the ground, others upright."""
        if self.kind == DUMBBELL:
            return axis_rotation((0.0, 0.0, 1.0), math.pi / 2)
        if self.kind != OCTAHEDRON:
            return EYE
        across, up, _ = (1 / side for side in self.scale)  # towards a face: (across, up, across)
        flat = math.sqrt(2) * across
        # about the level axis that lifts the face on the far side and lowers the near one
        turn = math.pi - math.atan2(flat, up)
        return axis_rotation((math.sqrt(0.5), 0.0, -math.sqrt(0.5)), turn)

    def span(self, start, place, velocity=(0, 0, 0), acceleration=(0, 0, 0), angle=0.0, rate=0.0,
             slowing=0.0):  # fmt: skip
        self.spans.append(Span(start, place, velocity, acceleration, angle, rate, slowing))

    def glide(self, start, place, heading, speed, angle=0.0, rate=0.0):
        """Roll or slide along the ground until friction has used up the speed."""
        drag = ROLLING_DRAG if self.rolls else FRICTION[self.material] * SLIDING * GRAVITY
        slowing = 0.0
        if self.rolls:
            radius = self.height()
            rate, slowing = speed / radius, -drag / radius
        lasts = speed / drag
        if not self.rolls:
            slowing = -rate / lasts if lasts > 0 else 0.0
        velocity = tuple(speed * h for h in heading)
        brake = tuple(-drag * h for h in heading)
        self.span(start, place, velocity, brake, angle, rate, slowing)
        end = tuple(p + v * lasts / 2 for p, v in zip(place, velocity))
        self.span(start + lasts, end, angle=angle + rate * lasts / 2)

    def pose(self, times):
        """Centres [T, 3] and rotations [T, 3, 3], object to world."""
        spans = self.spans
        which = np.searchsorted([s.start for s in spans[1:]], times, side="right")
        table = np.array(
            [(s.start, *s.place, *s.velocity, *s.acceleration, s.angle, s.rate, s.slowing)
             for s in spans]
        )[which]  # fmt: skip
        dt = np.minimum(times - table[:, 0], 1e3)[:, None]
        centre = table[:, 1:4] + table[:, 4:7] * dt + table[:, 7:10] * (dt * dt / 2)
        dt = dt[:, 0]
        angle = table[:, 10] + table[:, 11] * dt + table[:, 12] * dt * dt / 2
        return centre, axis_rotations(self.axis, angle) @ np.array(self.first)


class Scene:
    """Everything that the index decides."""

    def __init__(self, index, seed, zoom=0.0, tilt=0.0):
        draws = np.random.Generator(np.random.Philox(key=[seed, index])).random(384).tolist()
        draws.reverse()
        self._next = draws.pop
        self.index, self.zoom, self.tilt = index, zoom, tilt
        self.action = self.pick(len(ACTIONS))
        self.impacts = []
        main = self.thing(self.uniform(0.55, 0.8))
        if self.action == ROLLS and main.kind not in ROLLERS:
            self.action = SLIDES
        # a ball cannot slide; what can stand on end does so half of the time
        stands = main.kind not in ROLLERS or (main.kind != BALL and self._next() < 0.5)
        if self.action == SLIDES and not stands:
            self.action = ROLLS
        self.things = [main, None, None]
        self.move_main(main)
        for row, (near, far) in ((1, (-1.9, -1.4)), (2, (-3.4, -2.7))):
            present, place = self._next() < 0.55, (self.uniform(-2.0, 2.0), self.uniform(near, far))
            if self.things[row] is None and present:
                other = self.thing(self.uniform(0.35, 0.55))
                self.things[row] = other
                action = (FALLS, BOUNCES, ROLLS, SLIDES, SLIDES)[self.pick(5)]
                self.move(row, other, action, place, rest=self._next() < 0.3)
        self.impacts.sort()
        self.place_camera()
        self.paint()

    def uniform(self, low, high):
        return low + (high - low) * self._next()

    def pick(self, count):
        return min(int(self._next() * count), count - 1)

    def sign(self):
        return 1.0 if self._next() < 0.5 else -1.0

    def thing(self, size):
        kind, material, colour = self.pick(len(CLASSES)), self.pick(5), self.pick(8)
        stretch = self.uniform(0.85, 1.2)
        wide = 1.0 if kind == BALL else 1 / math.sqrt(stretch)
        tall = 1.0 if kind == BALL else stretch
        return Thing(kind, material, colour, (size * wide, size * tall, size * wide))

    def heading(self):
        turn = self.uniform(-0.4, 0.4)
        return (self.sign() * math.cos(turn), 0.0, math.sin(turn))

    def move_main(self, main):
        if self.action == COLLIDES:
            self.collide(main)
        elif self.action == RISES:
            yaw, spin = self.uniform(0, 2 * math.pi), self.uniform(-0.6, 0.6)
            main.lie((1.0, 0.0, 0.0), yaw)
            thick = 0.05 / 0.78
            wide = 1.1 * max(main.scale)
            plate = Thing(CUBE, 1, 7, (wide, thick, wide), label=PLATFORM)
            plate.lie((1.0, 0.0, 0.0), yaw)
            self.things[1] = plate
            low, speed = self.uniform(0.1, 0.5), self.uniform(0.5, 1.3)
            x = self.uniform(-0.3, 0.3)
            plate.span(0.0, (x, low, 0.0), (0.0, speed, 0.0), rate=spin)
            up = low + plate.height() + main.height()
            main.span(0.0, (x, up, 0.0), (0.0, speed, 0.0), rate=spin)
            way, turned = speed * LIFT_SECONDS, spin * LIFT_SECONDS
            plate.span(LIFT_SECONDS, (x, low + way, 0.0), angle=turned)
            main.span(LIFT_SECONDS, (x, up + way, 0.0), angle=turned)
        else:
            self.move(0, main, self.action, (self.uniform(-0.4, 0.4), 0.0))

    def move(self, row, thing, action, place, rest=False):
        """Fall, bounce, roll or slide, starting above or at (x, z) = `place`."""
        x, z = place
        heading = self.heading()
        yaw = self.uniform(0, 2 * math.pi)
        if action in (ROLLS, SLIDES):
            thing.rolls = thing.kind == BALL or (action == ROLLS and thing.kind in ROLLERS)
            thing.lie(heading, yaw)
            speed = 0.0 if rest else self.uniform(0.9, 2.2)
            centre = (x - heading[0] * speed / 3, thing.height(), z)
            thing.glide(0.0, centre, heading, speed, rate=0.0 if rest else self.uniform(-1, 1))
            return
        drop = self.uniform(1.0, 2.0) if action == FALLS else self.uniform(0.5, 1.2)
        speed = self.uniform(0.0, 0.6) if action == FALLS else self.uniform(0.4, 1.6)
        thing.rolls = thing.kind == BALL
        thing.lie(heading, yaw)
        if action == FALLS:
            rate = self.uniform(-2, 2)
            fall = math.sqrt(2 * drop / GRAVITY)
            start = (x, thing.height() + drop, z)
            self.fly(thing, 0.0, start, heading, speed, 0.0, 0.0, rate)
            self.impacts.append(Impact(fall, row, GRAVITY * fall))
            ground = (x + heading[0] * speed * fall, thing.height(), z + heading[2] * speed * fall)
            thing.glide(fall, ground, heading, speed * 0.7, rate * fall, rate / 2)
        else:
            self.bounce(row, thing, heading, x, z, drop, speed)

    def fly(self, thing, start, place, heading, speed, up, angle, rate):
        velocity = (speed * heading[0], up, speed * heading[2])
        thing.span(start, place, velocity, (0.0, -GRAVITY, 0.0), angle, rate)

    def bounce(self, row, thing, heading, x, z, drop, speed):
        """Parabolas between impacts; each takes (1 - e) of the normal speed, and friction, at most
        mu times the normal impulse, trades speed along the ground for spin."""
        thing.axis = (heading[2], 0.0, -heading[0])  # tumbles forward
        if thing.kind != 0:
            tilt = axis_rotation((0.0, 0.0, 1.0), self.uniform(-0.5, 0.5))
            thing.first = product(tilt, thing.first)
        e, mu = RESTITUTION[thing.material], FRICTION[thing.material]
        rate, angle, now, up = self.uniform(-1.5, 2.5), 0.0, 0.0, 0.0
        place = (x - heading[0] * speed / 3, thing.height() + drop, z)
        for _ in range(6):
            self.fly(thing, now, place, heading, speed, up, angle, rate)
            flight = 0.5
            for _ in range(6):  # the height of touching depends on how far it has turned
                fall = max(place[1] - thing.height(angle + rate * flight), 0.0)
                flight = (up + math.sqrt(up * up + 2 * GRAVITY * fall)) / GRAVITY
            hit = GRAVITY * flight - up
            now, angle = now + flight, angle + rate * flight
            place = (
                place[0] + heading[0] * speed * flight,
                thing.height(angle),
                place[2] + heading[2] * speed * flight,
            )
            self.impacts.append(Impact(now, row, hit))
            radius = thing.height(angle)
            slip = speed - rate * radius  # > 0: the ground drags it back
            traded = min(mu * (1 + e) * hit, abs(slip) / (1 + SPIN_FROM_FRICTION))
            traded = math.copysign(traded, slip)
            speed -= traded
            rate += SPIN_FROM_FRICTION * traded / radius
            up = e * hit
            if up < 0.35:
                break
        thing.span(now, place, angle=angle)

    def collide(self, main):
        """The main object runs along the ground into a smaller one at rest."""
        other = self.thing(self.uniform(0.38, 0.5))
        self.things[1] = other
        heading = self.heading()
        for thing in (main, other):
            thing.rolls = thing.kind in ROLLERS and (thing.kind == BALL or self._next() < 0.6)
            thing.lie(heading, self.uniform(0, 2 * math.pi))
        touching = main.reach(heading) + other.reach(tuple(-h for h in heading))
        speed, moment = self.uniform(1.4, 2.4), self.uniform(0.2, 0.6)
        drag = ROLLING_DRAG if main.rolls else FRICTION[main.material] * SLIDING * GRAVITY
        moment = min(moment, 0.6 * speed / drag)
        way = speed * moment - drag * moment**2 / 2
        before = -way - 0.5 * touching + self.uniform(-0.2, 0.2)
        main.glide(0.0, (heading[0] * before, main.height(), heading[2] * before), heading, speed)
        place, arrives = before + way, speed - drag * moment
        share = (1 + COLLISION_RESTITUTION) * arrives / (main.mass + other.mass)
        after, given = arrives - share * other.mass, share * main.mass
        angle = float(main.spans[0].rate * moment + main.spans[0].slowing * moment**2 / 2)
        main.spans = main.spans[:1]
        goes = heading if after >= 0 else tuple(-h for h in heading)
        turn = main.axis
        main.glide(moment, (heading[0] * place, main.height(), heading[2] * place), goes,
                   abs(after), angle)  # fmt: skip
        if after < 0 and main.rolls:
            main.spans[1:] = [
                span._replace(rate=-span.rate, slowing=-span.slowing) for span in main.spans[1:]
            ]
        main.axis = turn
        stands = place + touching
        centre = (heading[0] * stands, other.height(), heading[2] * stands)
        other.span(0.0, centre)
        other.glide(moment, centre, heading, given)
        self.impacts.append(Impact(moment, 0, arrives * 1.5))
        self.impacts.append(Impact(moment, 1, arrives * 1.5))

    def place_camera(self):
        """A camera on a smooth path, looking near the main object; no direction is preferred."""
        main = self.things[0]
        path, _ = main.pose(np.array([0.0, 0.5, 1.0]))
        self.focal = self.uniform(1.0, 1.25)  # in image widths
        self.eye = np.array(
            [self.uniform(-0.9, 0.9), self.uniform(1.1, 2.2), self.uniform(3.3, 4.5)]
        )
        drift = [self.uniform(-0.5, 0.5), self.uniform(-0.2, 0.2), self.uniform(-0.5, 0.5)]
        self.eye_velocity = np.array(drift)
        aside = [self.uniform(-0.45, 0.45), self.uniform(-0.3, 0.3), 0.0]
        self.target = path[0] * 0.6 + path[1] * 0.4 + np.array(aside)
        self.target_velocity = (path[2] - path[0]) * self.uniform(0.3, 0.8)
        self.roll = self.uniform(-0.04, 0.04)

    def camera(self, times):
        """Camera-to-world rotations [T, 3, 3] (x right, y down, z forward) and centres [T, 3]."""
        t = CAMERA_SECONDS * np.tanh(times[:, None] / CAMERA_SECONDS)  # it comes to rest in the end
        target = self.target + self.target_velocity * t
        eye = self.eye + self.eye_velocity * t
        nearer = np.clip(np.exp(-self.zoom * times[:, None]), *ZOOM_LIMITS)
        eye = target + (eye - target) * nearer
        eye[:, 1] = np.maximum(eye[:, 1], 0.4)
        forward = target - eye
        forward /= np.sqrt((forward**2).sum(1, keepdims=True))
        right = np.stack([-forward[:, 2], 0 * forward[:, 0], forward[:, 0]], 1)
        right /= np.sqrt((right**2).sum(1, keepdims=True))
        down = np.cross(forward, right)
        rotation = np.stack([right, down, forward], -1)
        rotation = rotation @ axis_rotations((0.0, 0.0, 1.0), np.full(len(times), self.roll))
        tilt = np.clip(self.tilt * times, -TILT_LIMIT, TILT_LIMIT)
        # camera x is to the right: turning forward towards down is a negative angle about it
        return rotation @ axis_rotations((1.0, 0.0, 0.0), -np.radians(tilt)), eye

    def paint(self):
        """Light, palettes and band-limited textures."""
        u = self.uniform
        elevation, azimuth = u(0.7, 1.15), u(-1.3, 1.3)
        self.light = np.array([
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
            math.cos(elevation) * math.cos(azimuth),
        ])  # fmt: skip
        self.sun = u(0.5, 0.75)
        self.wall_z = u(-6.5, -4.6)
        self.ground = self.plane(value=(0.42, 0.72))
        self.wall = self.plane(value=(0.5, 0.85))
        self.fade = u(0.04, 0.1)  # the wall is lighter above, per metre
        self.looks = [None if thing is None else self.look(thing) for thing in self.things]

    def plane(self, value):
        """Colour [3], two contrasts [2, 3], five waves (kx, ky, phase) [5, 3] and a gain."""
        u = self.uniform
        base = hsv(u(0, 1), u(0.03, 0.35), u(*value))
        main, second = u(0.04, 0.13), u(0.015, 0.045)
        tint = [u(0.7, 1.3) for _ in range(3)]
        contrasts = [
            [main * t for t in tint],
            [second * (1 + u(-1, 1)) for _ in range(3)],
        ]
        direction, order = u(0, math.pi), self.pick(4)  # streaks, tiles, or every direction
        waves = []
        for i in range(5):
            if order == 0:
                turn = direction + u(-0.15, 0.15)
            elif order == 1:
                turn = direction + math.pi / 2 * (i % 2) + u(-0.02, 0.02)
            else:
                turn = direction + math.pi * (i + u(-0.3, 0.3)) / 5
            number = 2 * math.pi / (0.6 * 4.0 ** self._next())  # waves of 0.6 to 2.4 m
            waves.append((number * math.cos(turn), number * math.sin(turn), u(0, 2 * math.pi)))
        return base, np.array(contrasts), np.array(waves), u(0.5, 1.5)

    def look(self, thing):
        """Colours [2, 3], waves [3, 4] (k, phase), ring wave, gain, mixing, shine, gloss."""
        u = self.uniform
        if thing.label == PLATFORM:
            base = second = np.array([0.4, 0.42, 0.46])
        else:
            base = colour_of(thing.colour, u)
            second = np.clip(
                base * u(0.45, 0.7) if thing.colour != 7 else base * u(0.5, 0.75), 0, 1
            )
        waves = np.array([[u(-1, 1), u(-1, 1), u(-1, 1), u(0, 2 * math.pi)] for _ in range(3)])
        waves[:, :3] /= np.sqrt((waves[:, :3] ** 2).sum(1, keepdims=True))
        rings, gain, shine, gloss = 0.0, 1.0, 0.1, 8.0
        if thing.material == 0:  # wood: rings around its axis, slightly wavy
            waves[:, :3] *= np.array([[2.0], [3.0], [2.0]])
            rings, gain = u(9, 14), 1.0
        elif thing.material == 1:  # metal: a faint brush along one direction, a sharp highlight
            waves[:, :3] = waves[:1, :3] * np.array([[5.0], [9.0], [3.0]])
            gain, shine, gloss = 0.5, 0.9, 24.0
            second = base * 0.6
        elif thing.material == 2:  # rubber: broad bands
            waves[:, :3] = waves[:1, :3] * u(4.0, 6.5)
            waves[:, 3] = waves[0, 3]
            gain, shine = 2.0, 0.05
        elif thing.material == 3:  # stone: speckles
            waves[:, :3] *= np.array([[7.0], [9.0], [11.0]])
            gain = 1.0
            base = 0.7 * base + 0.3 * base.mean()
            second = base * 0.55
        else:  # plastic: a lattice of lighter patches, glossy
            waves[:, :3] = np.linalg.qr(waves[:, :3])[0] * u(4.0, 6.0)
            gain, shine, gloss = 1.3, 0.6, 40.0
            second = 0.55 * base + 0.45
        return base, second, waves, rings, gain, shine, gloss


_HUES = (0.0, 0.075, 0.145, 0.34, 0.48, 0.61, 0.78, 0.1)  # in the order of captions.COLOURS


def hsv(hue, saturation, value):
    turns = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return value * (1 - saturation * np.clip(np.minimum(turns, 4 - turns), 0, 1))


def colour_of(colour, u):
    if colour == 7:
        return hsv(u(0, 1), u(0.0, 0.06), u(0.88, 0.98))
    return hsv(_HUES[colour] + u(-0.015, 0.015), u(0.65, 0.9), u(0.72, 0.95))
