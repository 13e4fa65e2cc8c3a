"""One sentence about a scene in English, German and Spanish, with the genders and cases right."""

from tfssl.pipelines.sources.world.shapes import CLASSES

ACTIONS = ("falls", "bounces", "rolls", "slides", "collides", "rises")
MATERIALS = ("wood", "metal", "rubber", "stone", "plastic")
COLOURS = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "white")
LANGUAGES = ("en", "de", "es")

_ENGLISH_MATERIAL = ("wooden", "metal", "rubber", "stone", "plastic")
_ENGLISH_ACTION = (
    "falls to the ground",
    "bounces on the ground",
    "rolls across the ground",
    "slides across the ground",
    "collides with {other}",
    "is lifted by a platform",
)
# Noun and gender of each class.
_GERMAN = (
    ("Ball", "m"),
    ("Würfel", "m"),
    ("Zylinder", "m"),
    ("Kegel", "m"),
    ("Oktaeder", "n"),
    ("Ring", "m"),
    ("Hantel", "f"),
    ("Kreuz", "n"),
)
_GERMAN_COLOUR = (
    "rot",
    "orangefarben",
    "gelb",
    "grün",
    "türkisfarben",
    "blau",
    "violett",
    "weiß",
)
_GERMAN_MATERIAL = ("Holz", "Metall", "Gummi", "Stein", "Kunststoff")
_GERMAN_ACTION = (
    "fällt zu Boden",
    "springt auf dem Boden auf und ab",
    "rollt über den Boden",
    "rutscht über den Boden",
    "stößt mit {other} zusammen",
    "wird von einer Plattform angehoben",
)
_GERMAN_NOMINATIVE = {"m": ("Ein", "er"), "f": ("Eine", "e"), "n": ("Ein", "es")}
_GERMAN_DATIVE = {"m": ("einem", "en"), "f": ("einer", "en"), "n": ("einem", "en")}
_SPANISH = (
    ("pelota", "f"),
    ("cubo", "m"),
    ("cilindro", "m"),
    ("cono", "m"),
    ("octaedro", "m"),
    ("anillo", "m"),
    ("mancuerna", "f"),
    ("cruz", "f"),
)
_SPANISH_COLOUR = {
    "m": ("rojo", "naranja", "amarillo", "verde", "turquesa", "azul", "morado", "blanco"),
    "f": ("roja", "naranja", "amarilla", "verde", "turquesa", "azul", "morada", "blanca"),
}
_SPANISH_MATERIAL = ("madera", "metal", "goma", "piedra", "plástico")
_SPANISH_ACTION = (
    "cae al suelo",
    "rebota en el suelo",
    "rueda por el suelo",
    "se desliza por el suelo",
    "choca con {other}",
    "es {lifted} por una plataforma",
)
COLLIDES = ACTIONS.index("collides")


def _english(kind, colour, material):
    article = "an" if COLOURS[colour][0] in "aeiou" else "a"
    return f"{article} {COLOURS[colour]} {_ENGLISH_MATERIAL[material]} {CLASSES[kind]}"


def _german(kind, colour, material, case):
    noun, gender = _GERMAN[kind]
    article, ending = case[gender]
    return f"{article} {_GERMAN_COLOUR[colour]}{ending} {noun} aus {_GERMAN_MATERIAL[material]}"


def _spanish(kind, colour, material):
    noun, gender = _SPANISH[kind]
    article = "un" if gender == "m" else "una"
    return f"{article} {noun} {_SPANISH_COLOUR[gender][colour]} de {_SPANISH_MATERIAL[material]}"


def caption(language, action, thing, other):
    """The sentence; `thing` and `other` are (class, colour, material) as integers.

    `other` is what a collision is with, and is not mentioned otherwise.
    """
    if language == "en":
        sentence = f"{_english(*thing)} {_ENGLISH_ACTION[action]}"
        partner = _english
    elif language == "de":
        sentence = f"{_german(*thing, _GERMAN_NOMINATIVE)} {_GERMAN_ACTION[action]}"

        def partner(*words):
            return _german(*words, _GERMAN_DATIVE)
    else:
        lifted = "elevado" if _SPANISH[thing[0]][1] == "m" else "elevada"
        sentence = f"{_spanish(*thing)} {_SPANISH_ACTION[action].replace('{lifted}', lifted)}"
        partner = _spanish
    if action == COLLIDES:
        sentence = sentence.replace("{other}", partner(*other))
    return sentence[0].upper() + sentence[1:] + "."
