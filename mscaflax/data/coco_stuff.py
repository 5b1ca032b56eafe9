"""The 182 classes of COCO-Stuff, in the order of the ids in its `stuffthingmaps`, with colours of our own.

Names and order: Caesar, Uijlings, Ferrari, "COCO-Stuff: Thing and stuff classes in context", CVPR 2018. The
official list counts from 1, the maps from 0; 255 is unlabelled. Ids 0..90 are things, of which eleven were
dropped from COCO and occur in no map; ids 91..181 are stuff.
"""

import math
from functools import lru_cache

from mscaflax.data.classes import ClassTable

# Groups of classes in OKLCH (Ottosson 2020): lightness range, chroma, hue range in degrees. Things are vivid
# and share out the whole circle; stuff is calmer, in the colours that it has in the world.
_GROUPS = {
    "person": (0.64, 0.64, 0.19, 20, 20),
    "vehicle": (0.52, 0.72, 0.17, 300, 345),
    "street": (0.60, 0.78, 0.17, 40, 62),
    "animal": (0.58, 0.82, 0.15, 70, 112),
    "accessory": (0.50, 0.70, 0.16, 345, 375),
    "sports": (0.56, 0.76, 0.17, 270, 300),
    "kitchen": (0.62, 0.84, 0.12, 185, 215),
    "food": (0.66, 0.86, 0.17, 45, 100),
    "furniture": (0.46, 0.64, 0.15, 10, 45),
    "electronic": (0.50, 0.70, 0.16, 250, 275),
    "appliance": (0.56, 0.74, 0.13, 160, 185),
    "indoor": (0.60, 0.82, 0.16, 320, 360),
    "plant": (0.48, 0.76, 0.12, 122, 150),
    "water": (0.48, 0.68, 0.09, 215, 240),
    "sky": (0.76, 0.92, 0.06, 225, 245),
    "ground": (0.52, 0.80, 0.06, 60, 95),
    "paving": (0.50, 0.72, 0.03, 270, 330),
    "rock": (0.44, 0.68, 0.03, 60, 120),
    "building": (0.48, 0.76, 0.08, 25, 50),
    "structure": (0.46, 0.72, 0.06, 300, 350),
    "wall": (0.66, 0.86, 0.05, 40, 80),
    "ceiling": (0.86, 0.92, 0.03, 85, 100),
    "floor": (0.50, 0.70, 0.07, 50, 75),
    "window": (0.70, 0.82, 0.06, 190, 215),
    "textile": (0.62, 0.84, 0.08, 330, 375),
    "wood": (0.40, 0.66, 0.07, 40, 70),
    "material": (0.58, 0.82, 0.04, 130, 200),
}

# (group, names separated by commas), in the order of the ids.
_CLASSES = (
    ("person", "person"),
    ("vehicle", "bicycle,car,motorcycle,airplane,bus,train,truck,boat"),
    ("street", "traffic light,fire hydrant,street sign,stop sign,parking meter,bench"),
    ("animal", "bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe"),
    ("accessory", "hat,backpack,umbrella,shoe,eye glasses,handbag,tie,suitcase"),
    ("sports", "frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard"),
    ("sports", "tennis racket"),
    ("kitchen", "bottle,plate,wine glass,cup,fork,knife,spoon,bowl"),
    ("food", "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake"),
    ("furniture", "chair,couch,potted plant,bed,mirror,dining table,window,desk,toilet,door"),
    ("electronic", "tv,laptop,mouse,remote,keyboard,cell phone"),
    ("appliance", "microwave,oven,toaster,sink,refrigerator,blender"),
    ("indoor", "book,clock,vase,scissors,teddy bear,hair drier,toothbrush,hair brush"),
    ("textile", "banner,blanket"),
    ("plant", "branch"),
    ("building", "bridge,building-other"),
    ("plant", "bush"),
    ("wood", "cabinet"),
    ("structure", "cage"),
    ("material", "cardboard"),
    ("textile", "carpet"),
    ("ceiling", "ceiling-other,ceiling-tile"),
    ("textile", "cloth,clothes"),
    ("sky", "clouds"),
    ("wood", "counter,cupboard"),
    ("textile", "curtain"),
    ("wood", "desk-stuff"),
    ("ground", "dirt"),
    ("wood", "door-stuff"),
    ("structure", "fence"),
    ("floor", "floor-marble,floor-other,floor-stone,floor-tile,floor-wood"),
    ("plant", "flower"),
    ("sky", "fog"),
    ("food", "food-other,fruit"),
    ("wood", "furniture-other"),
    ("plant", "grass"),
    ("paving", "gravel"),
    ("ground", "ground-other"),
    ("rock", "hill"),
    ("building", "house"),
    ("plant", "leaves"),
    ("ceiling", "light"),
    ("textile", "mat"),
    ("material", "metal"),
    ("window", "mirror-stuff"),
    ("plant", "moss"),
    ("rock", "mountain"),
    ("ground", "mud"),
    ("textile", "napkin"),
    ("structure", "net"),
    ("material", "paper"),
    ("paving", "pavement"),
    ("textile", "pillow"),
    ("plant", "plant-other"),
    ("material", "plastic"),
    ("paving", "platform"),
    ("ground", "playingfield"),
    ("structure", "railing"),
    ("paving", "railroad"),
    ("water", "river"),
    ("paving", "road"),
    ("rock", "rock"),
    ("building", "roof"),
    ("textile", "rug"),
    ("plant", "salad"),
    ("ground", "sand"),
    ("water", "sea"),
    ("wood", "shelf"),
    ("sky", "sky-other"),
    ("building", "skyscraper"),
    ("sky", "snow"),
    ("material", "solid-other"),
    ("structure", "stairs"),
    ("rock", "stone"),
    ("ground", "straw"),
    ("structure", "structural-other"),
    ("wood", "table"),
    ("building", "tent"),
    ("textile", "textile-other,towel"),
    ("plant", "tree,vegetable"),
    ("wall", "wall-brick,wall-concrete,wall-other,wall-panel,wall-stone,wall-tile,wall-wood"),
    ("water", "water-other,waterdrops"),
    ("window", "window-blind,window-other"),
    ("wood", "wood"),
)


# What two colours must differ by at least, summed over the channels, to be told apart in a picture.
_DISTANCE = 15


def _srgb(lightness: float, chroma: float, hue: float) -> tuple[int, int, int]:
    """OKLCH to 8-bit sRGB; hue in degrees, colours out of gamut clipped."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    return tuple(_encode(min(max(value, 0.0), 1.0)) for value in linear)


def _encode(linear: float) -> int:
    """Linear light in 0..1 to 8-bit sRGB (IEC 61966-2-1)."""
    return round(255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055))


def _crowded(colour: tuple[int, int, int], taken: list[tuple[int, int, int]]) -> bool:
    return any(sum(abs(x - y) for x, y in zip(colour, other, strict=True)) < _DISTANCE for other in taken)


@lru_cache(maxsize=1)
def coco_stuff_classes() -> ClassTable:
    """Names and colours of COCO-Stuff's 182 classes; 255 is unlabelled in its files."""
    names, groups = [], []
    for group, members in _CLASSES:
        for name in members.split(","):
            names.append(name)
            groups.append(group)
    palette: list[tuple[int, int, int]] = [(0, 0, 0)] * len(names)
    taken: list[tuple[int, int, int]] = []
    for group, (low, high, chroma, first, last) in _GROUPS.items():
        members = [i for i, member in enumerate(groups) if member == group]
        for place, i in enumerate(members):
            # Hue advances with the member; lightness jumps by the golden ratio: neighbours differ in both.
            hue = first + (last - first) * (place + 0.5) / len(members)
            lightness = low + (high - low) * ((place * 0.6180339887) % 1)
            while _crowded(colour := _srgb(lightness, chroma, hue), taken):
                lightness -= 0.01
            taken.append(colour)
            palette[i] = colour
    return ClassTable(tuple(names), tuple(palette), ignore=255)
