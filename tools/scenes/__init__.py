"""Seeded, cluttered scenes of textured shapes with known masks: what the newer demo models learn from.

A class is an outline together with a texture ("striped circle"). Every outline comes with every texture, and the
background has pieces of the same textures in other outlines and the same outlines without texture: neither tells the
class by itself. Colours are drawn independently of the class.

    rng = np.random.default_rng(0)
    scene = one_object(rng)                                      # or two_objects(rng)
    scene = draw_scene(rng, random_items(rng, 3), radius=(0.12, 0.17))
    scene.image, scene.masks, scene.boxes, scene.labels          # arrays, one row for each object
    scene.items[0].outline, scene.items[0].texture, scene.items[0].colour    # words; scene.items[0].name

To paint on a background of your own, or to change one: ``paint(rng, draw_background(rng, size), items, radius)``.
"""

from scenes.drawing import (
    CLASSES,
    SIZE,
    Item,
    Scene,
    draw_background,
    draw_scene,
    item_of,
    one_object,
    paint,
    random_items,
    two_objects,
)
from scenes.files import draw_many, write_scenes
from scenes.outlines import OUTLINES
from scenes.textures import COLOURS, TEXTURES

__all__ = [
    "CLASSES",
    "COLOURS",
    "OUTLINES",
    "SIZE",
    "TEXTURES",
    "Item",
    "Scene",
    "draw_background",
    "draw_many",
    "draw_scene",
    "item_of",
    "one_object",
    "paint",
    "random_items",
    "two_objects",
    "write_scenes",
]
