"""Six kinds of synthetic scenes, drawn: the classes of the Intel Image Classification data set.

Sky, light, tint, season, viewpoint and clutter come from the same distributions in every class, so a
network has to look at shapes: the mean colour of an image says little about its class.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 150  # pixels a side, as in the Intel data set
CANVAS = 2 * SIZE  # drawn larger and reduced, which smooths the edges
Colour = tuple[int, int, int]
Painter = Callable[[ImageDraw.ImageDraw, np.random.Generator], None]

# Top and bottom of the sky: noon, overcast, sunset, dusk, dawn, night, storm.
SKIES = (
    ((70, 130, 210), (180, 210, 240)),
    ((140, 145, 155), (200, 205, 210)),
    ((90, 80, 140), (250, 160, 90)),
    ((30, 35, 80), (150, 90, 130)),
    ((150, 170, 210), (250, 215, 190)),
    ((10, 12, 35), (40, 50, 90)),
    ((60, 70, 80), (130, 140, 140)),
)
# What covers the ground and the trees: summer, autumn, winter, drought, spring, night blue.
GROUNDS = ((70, 110, 50), (140, 95, 50), (215, 220, 230), (165, 150, 100), (120, 160, 80), (60, 75, 100))


def shade(colour: Iterable[float], factor: float) -> Colour:
    """The colour times `factor`, within 0..255."""
    red, green, blue = (int(min(max(part * factor, 0), 255)) for part in colour)
    return red, green, blue


def pick(rng: np.random.Generator, choices: Sequence) -> tuple:
    """One of `choices`."""
    return choices[int(rng.integers(len(choices)))]


def ridge(rng: np.random.Generator, height: float, roughness: float) -> np.ndarray:
    """A mountain line as points [65, 2] from the left border to the right, by midpoint displacement."""
    heights = height + rng.uniform(-roughness, roughness, 5)
    spread = roughness / 2
    for _ in range(4):
        between = (heights[:-1] + heights[1:]) / 2 + rng.normal(0, spread / 2.5, len(heights) - 1)
        joined = np.empty(2 * len(heights) - 1)
        joined[::2], joined[1::2] = heights, between
        heights, spread = joined, spread / 1.9
    return np.column_stack((np.linspace(-10, CANVAS + 10, len(heights)), heights))


def fill_below(draw: ImageDraw.ImageDraw, line: np.ndarray, colour: Colour) -> None:
    """Fill from a line of points down to the bottom."""
    draw.polygon([*map(tuple, line), (CANVAS + 10, CANVAS), (-10, CANVAS)], fill=colour)


def paint_tree(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, foot: float, height: float, colour: Colour
) -> None:
    """A conifer or a broad-leaved tree that stands at (x, foot)."""
    trunk = height * rng.uniform(0.03, 0.06)
    draw.rectangle(
        (x - trunk, foot - height * 0.5, x + trunk, foot), fill=shade((85, 65, 50), rng.uniform(0.6, 1.2))
    )
    if rng.random() < 0.5:
        for level in range(3):
            top, base = foot - height * (1 - 0.2 * level), foot - height * (0.62 - 0.2 * level)
            half = height * (0.13 + 0.05 * level)
            draw.polygon(((x, top), (x - half, base), (x + half, base)), fill=shade(colour, 1 - 0.1 * level))
    else:
        for _ in range(5):
            radius = height * rng.uniform(0.13, 0.2)
            cx, cy = x + rng.normal(0, height * 0.1), foot - height * rng.uniform(0.55, 0.85)
            draw.ellipse(
                (cx - radius, cy - radius, cx + radius, cy + radius),
                fill=shade(colour, rng.uniform(0.75, 1.15)),
            )


def paint_facade(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[float, float, float, float]
) -> None:
    """A house front with rows of windows."""
    left, top, right, bottom = box
    wall = shade(
        pick(rng, ((190, 170, 150), (150, 90, 75), (120, 125, 135), (205, 205, 200), (90, 100, 115))),
        rng.uniform(0.6, 1.15),
    )
    draw.rectangle(box, fill=wall)
    if rng.random() < 0.3:
        draw.polygon(
            ((left, top), (right, top), ((left + right) / 2, top - (right - left) * 0.35)),
            fill=shade(wall, 0.7),
        )
    step_x, step_y = rng.uniform(13, 24), rng.uniform(16, 30)
    lit = rng.random()
    for y in np.arange(top + 8, bottom - step_y * 0.6, step_y):
        for x in np.arange(left + 6, right - step_x * 0.6, step_x):
            glass = (
                (240, 220, 150) if rng.random() < 0.4 * lit else shade((70, 90, 110), rng.uniform(0.6, 1.3))
            )
            draw.rectangle((x, y, x + step_x * 0.5, y + step_y * 0.55), fill=glass)


def paint_buildings(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """House fronts seen from across, in two rows."""
    ground = rng.uniform(0.8, 0.98) * CANVAS
    draw.rectangle((0, ground, CANVAS, CANVAS), fill=shade(pick(rng, GROUNDS), rng.uniform(0.6, 1)))
    for highest in (0.1, 0.3):
        x = rng.uniform(-60, 0)
        while x < CANVAS:
            width = rng.uniform(45, 130)
            if rng.random() < 0.8:
                paint_facade(draw, rng, (x, rng.uniform(highest, highest + 0.4) * CANVAS, x + width, ground))
            x += width + rng.uniform(0, 25)


def paint_forest(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Rows of trees, the nearer the larger."""
    season = pick(rng, GROUNDS)
    horizon = rng.uniform(0.35, 0.6) * CANVAS
    draw.rectangle((0, horizon, CANVAS, CANVAS), fill=shade(season, rng.uniform(0.6, 0.9)))
    for nearness in np.linspace(0, 1, 4):
        foot = horizon + nearness * (CANVAS * 1.05 - horizon)
        height = CANVAS * (0.22 + 0.5 * nearness) * rng.uniform(0.8, 1.1)
        for x in np.arange(rng.uniform(-30, 0), CANVAS + 30, height * rng.uniform(0.25, 0.4)):
            x, y = x + rng.normal(0, 6), foot + rng.normal(0, 6)
            paint_tree(draw, rng, x, y, height * rng.uniform(0.75, 1.2), shade(season, rng.uniform(0.45, 1)))


def paint_mountain(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Ridges behind each other, some with snow on the peaks."""
    rock = pick(rng, ((110, 105, 115), (95, 85, 80), (130, 120, 105), (80, 95, 115)))
    snow = rng.random() < 0.6
    for layer, height in enumerate(np.sort(rng.uniform(0.2, 0.65, rng.integers(2, 4)))):
        line = ridge(rng, height * CANVAS, rng.uniform(0.12, 0.22) * CANVAS)
        colour = shade(rock, 1.1 - 0.2 * layer)
        fill_below(draw, line, colour)
        peak = line[:, 1].min()
        if snow and layer == 0:
            limit = peak + rng.uniform(0.08, 0.2) * CANVAS
            edge = np.maximum(line[:, 1], limit + rng.normal(0, 5, len(line)))
            cap = [*map(tuple, line), *zip(line[::-1, 0], edge[::-1], strict=True)]
            draw.polygon(cap, fill=shade((235, 238, 245), rng.uniform(0.85, 1)))
        for x, y in line[rng.integers(0, len(line), 10)]:  # gullies
            draw.line(
                (x, y, x + rng.normal(0, 20), y + rng.uniform(20, 70)), fill=shade(colour, 0.8), width=3
            )
    if rng.random() < 0.6:
        fill_below(draw, ridge(rng, rng.uniform(0.82, 0.95) * CANVAS, 12), shade(pick(rng, GROUNDS), 0.8))


def paint_glacier(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """A broken ice front with crevasses, before rock, above water or scree."""
    if rng.random() < 0.7:
        fill_below(
            draw,
            ridge(rng, rng.uniform(0.15, 0.4) * CANVAS, 40),
            shade((100, 100, 110), rng.uniform(0.6, 1.2)),
        )
    ice = pick(rng, ((205, 225, 240), (170, 205, 225), (225, 225, 225), (150, 165, 180)))
    top, foot = rng.uniform(0.3, 0.55) * CANVAS, rng.uniform(0.75, 0.99) * CANVAS
    xs = np.append(np.arange(-20, CANVAS, rng.uniform(14, 26)), CANVAS + 20)
    rims = top + rng.normal(0, 14, len(xs)) + np.linspace(-1, 1, len(xs)) * rng.uniform(-40, 40)
    for x, following, rim in zip(xs, xs[1:], rims, strict=False):
        lean = rng.normal(0, 8)
        tower = (
            (x, rim + rng.normal(0, 9)),
            (following, rim + rng.normal(0, 9)),
            (following + lean, foot),
            (x + lean, foot),
        )
        draw.polygon(tower, fill=shade(ice, rng.uniform(0.78, 1.08)))
        draw.line(
            (x, rim, x + lean, foot),
            fill=shade((70, 120, 165), rng.uniform(0.7, 1.3)),
            width=int(rng.integers(2, 6)),
        )
    for _ in range(rng.integers(3, 9)):  # crevasses that run across
        x, y = rng.uniform(0, CANVAS), rng.uniform(top, foot)
        steps = np.cumsum(rng.normal((14, 0), (3, 9), (7, 2)), 0)
        draw.line(
            [(x + dx, y + dy) for dx, dy in steps], fill=shade((60, 110, 160), rng.uniform(0.7, 1.3)), width=3
        )
    draw.rectangle(
        (0, foot, CANVAS, CANVAS), fill=shade(pick(rng, (*GROUNDS, (60, 90, 110), (110, 105, 100))), 0.8)
    )


def paint_sea(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Water to the horizon with waves, at times a beach, a sail or an island."""
    horizon = rng.uniform(0.3, 0.7) * CANVAS
    water = pick(
        rng, ((40, 90, 130), (50, 120, 130), (90, 100, 110), (25, 45, 80), (120, 130, 140), (150, 110, 90))
    )
    if rng.random() < 0.3:
        island = ridge(rng, horizon - rng.uniform(5, 25), 10)
        draw.polygon(
            [*map(tuple, island[20:50]), (island[50, 0], horizon), (island[20, 0], horizon)],
            fill=shade(water, 0.6),
        )
    draw.rectangle((0, horizon, CANVAS, CANVAS), fill=water)
    for y in horizon + (CANVAS - horizon) * np.linspace(0.02, 1, 26) ** 1.6:
        size = 1 + 5 * (y - horizon) / (CANVAS - horizon)
        for _ in range(rng.integers(2, 7)):
            x, length = rng.uniform(-20, CANVAS), size * rng.uniform(5, 22)
            draw.arc(
                (x, y, x + length, y + 2 * size),
                180,
                360,
                fill=shade(water, rng.uniform(0.7, 1.7)),
                width=max(1, int(size / 2)),
            )
    if rng.random() < 0.4:
        shore = ridge(rng, rng.uniform(0.85, 0.97) * CANVAS, 15)
        fill_below(draw, shore, shade(pick(rng, (*GROUNDS, (205, 185, 140))), rng.uniform(0.8, 1.1)))
        draw.line([*map(tuple, shore)], fill=(235, 240, 240), width=4)
    if rng.random() < 0.4:
        x, y, size = rng.uniform(30, CANVAS - 30), horizon + rng.uniform(0, 40), rng.uniform(12, 35)
        draw.polygon(
            ((x, y - 2 * size), (x, y), (x + size, y)), fill=shade((240, 235, 225), rng.uniform(0.6, 1))
        )
        draw.rectangle((x - size, y, x + size, y + size * 0.3), fill=(80, 55, 45))


def paint_street(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """A road to the vanishing point between house fronts, with markings, lamps and cars."""
    vanish_x, vanish_y = rng.uniform(0.3, 0.7) * CANVAS, rng.uniform(0.4, 0.6) * CANVAS
    draw.rectangle((0, vanish_y, CANVAS, CANVAS), fill=shade(pick(rng, GROUNDS), rng.uniform(0.6, 1)))
    left, right = rng.uniform(-0.3, 0.1) * CANVAS, rng.uniform(0.9, 1.3) * CANVAS
    asphalt = shade(
        pick(rng, ((75, 75, 80), (110, 105, 100), (55, 60, 70), (150, 145, 140))), rng.uniform(0.8, 1.2)
    )
    draw.polygon(((vanish_x, vanish_y), (left, CANVAS), (right, CANVAS)), fill=asphalt)

    def towards(x: float, y: float, share: float) -> tuple[float, float]:
        return x + (vanish_x - x) * share, y + (vanish_y - y) * share

    for border in (left - 10, right + 10):
        roof = rng.uniform(-0.4, 0.2) * CANVAS
        for near in np.linspace(0, 0.84, rng.integers(4, 8)):
            far = near + 0.11
            front = (
                towards(border, CANVAS, near),
                towards(border, roof, near),
                towards(border, roof, far),
                towards(border, CANVAS, far),
            )
            draw.polygon(front, fill=shade((165, 145, 130), rng.uniform(0.5, 1.25)))
            for floor in np.linspace(0.2, 0.7, 3):
                y = roof + (CANVAS - roof) * floor
                a, b = near + 0.03, near + 0.08
                window = (
                    towards(border, y, a),
                    towards(border, y + 30, a),
                    towards(border, y + 30, b),
                    towards(border, y, b),
                )
                draw.polygon(window, fill=shade((75, 90, 110), rng.uniform(0.6, 1.8)))
    if rng.random() < 0.8:
        centre = (left + right) / 2
        for near in np.linspace(0, 0.9, 8):
            a, b = near, near + 0.05
            dash = (
                towards(centre - 6, CANVAS, a),
                towards(centre + 6, CANVAS, a),
                towards(centre + 6, CANVAS, b),
                towards(centre - 6, CANVAS, b),
            )
            draw.polygon(dash, fill=(225, 220, 200))
    for _ in range(rng.integers(0, 4)):
        x, y = towards(rng.uniform(left + 40, right - 40), CANVAS, rng.uniform(0.15, 0.75))
        size = (y - vanish_y) * rng.uniform(0.25, 0.4)
        body = shade(
            pick(rng, ((190, 40, 40), (40, 70, 150), (220, 220, 220), (30, 30, 30), (200, 160, 40))),
            rng.uniform(0.7, 1.1),
        )
        draw.rectangle((x - size / 2, y - size * 0.5, x + size / 2, y), fill=body)
        draw.rectangle(
            (x - size * 0.35, y - size * 0.8, x + size * 0.35, y - size * 0.5),
            fill=shade((90, 110, 130), 0.8),
        )


PAINTERS: dict[str, Painter] = {
    "buildings": paint_buildings,
    "forest": paint_forest,
    "glacier": paint_glacier,
    "mountain": paint_mountain,
    "sea": paint_sea,
    "street": paint_street,
}


def paint_sky(rng: np.random.Generator) -> Image.Image:
    """A sky over the whole canvas: a gradient with, at times, sun or moon and clouds."""
    top, bottom = (np.array(colour, float) for colour in pick(rng, SKIES))
    blend = np.linspace(0, 1, CANVAS)[:, None, None] ** rng.uniform(0.6, 1.4)
    sky = np.broadcast_to(top + (bottom - top) * blend, (CANVAS, CANVAS, 3)).astype(np.uint8)
    image = Image.fromarray(sky)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.4:
        x, y, radius = rng.uniform(0, CANVAS), rng.uniform(0, 0.4 * CANVAS), rng.uniform(8, 22)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 245, 215))
    for _ in range(rng.integers(0, 5)):
        x, y = rng.uniform(0, CANVAS), rng.uniform(0, 0.4 * CANVAS)
        cloud = shade(bottom, rng.uniform(0.9, 1.25))
        for dx, dy in rng.normal(0, (25, 6), (8, 2)):
            radius = rng.uniform(8, 20)
            draw.ellipse(
                (x + dx - 2 * radius, y + dy - radius, x + dx + 2 * radius, y + dy + radius), fill=cloud
            )
    return image.filter(ImageFilter.GaussianBlur(2))


def paint_clutter(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """What stands around in any scene: people, poles, bushes, birds."""
    for _ in range(rng.integers(0, 4)):
        x, foot, height = rng.uniform(0, CANVAS), rng.uniform(0.75, 1.05) * CANVAS, rng.uniform(25, 80)
        colour = shade(
            pick(rng, ((60, 60, 70), (150, 60, 50), (60, 90, 140), (200, 190, 170))), rng.uniform(0.6, 1.2)
        )
        kind = rng.integers(4)
        if kind == 0:
            draw.ellipse(
                (x - height / 8, foot - height, x + height / 8, foot - height * 0.75), fill=(200, 160, 130)
            )
            draw.rectangle((x - height / 6, foot - height * 0.75, x + height / 6, foot), fill=colour)
        elif kind == 1:
            draw.line((x, foot - 2 * height, x, foot), fill=shade((80, 80, 85), 0.8), width=5)
        elif kind == 2:
            draw.ellipse(
                (x - height / 2, foot - height / 2, x + height / 2, foot + 10),
                fill=shade(pick(rng, GROUNDS), 0.6),
            )
        else:
            y = rng.uniform(0.05, 0.4) * CANVAS
            draw.line(((x - 9, y - 5), (x, y), (x + 9, y - 5)), fill=(40, 40, 45), width=3)


def draw_scene(name: str, rng: np.random.Generator) -> Image.Image:
    """One scene of a class, `SIZE` x `SIZE` pixels RGB."""
    image = paint_sky(rng)
    draw = ImageDraw.Draw(image)
    PAINTERS[name](draw, rng)
    paint_clutter(draw, rng)

    # Where the camera points: away from the border, which the rotation leaves empty.
    side = CANVAS * rng.uniform(0.7, 0.9)
    border = 0.04 * CANVAS
    x, y = rng.uniform(border, CANVAS - border - side, 2)
    image = image.rotate(rng.uniform(-4, 4), Image.Resampling.BILINEAR)
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    light = rng.uniform(0.65, 1.15) * rng.uniform(0.8, 1.2, 3)  # brightness and the lamp's colour
    haze = rng.uniform(0, 0.25) * rng.uniform(120, 230, 3)
    pixels = np.asarray(image, np.float32) * light * (1 - haze.mean() / 255) + haze
    pixels += rng.normal(0, rng.uniform(2, 9), pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
