"""The words of the self-generated shop: a category tree, invented brands and series.

The words mean something, because text models read the titles: every category has its own nouns and
adjectives. Nothing here is a real brand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


# A leaf, then a line each: nouns; adjectives; follow-ups, bought after the product, in turn
_GOODS: Final = """
Outdoor / Camping / Tents
    dome tent, tunnel tent, backpacking tent, family tent, tarp shelter
    waterproof, two-person, four-season, freestanding, ultralight
    groundsheet, seam sealer, replacement poles
Outdoor / Camping / Sleeping Bags
    down sleeping bag, mummy sleeping bag, quilt, bivvy bag
    three-season, compressible, winter, hooded, summer
    sleeping bag liner, compression sack
Outdoor / Camping / Camp Kitchen
    gas stove, alcohol stove, cook set, camping kettle, fire pit
    titanium, folding, compact, wind-proof, nesting
    gas cartridge, wind shield, cleaning scraper
Outdoor / Hiking / Backpacks
    daypack, trekking backpack, hydration pack, rolltop pack
    30-litre, 60-litre, padded, ventilated, weatherproof
    rain cover, hydration bladder
Outdoor / Hiking / Boots
    leather hiking boots, trail shoes, mountain boots, approach shoes
    waterproof, mid-cut, breathable, wide-fit, insulated
    boot wax, replacement laces, wool socks
Outdoor / Cycling / Bicycle Parts
    bicycle chain, road saddle, disc brake set, gravel tyre, pedal set
    lightweight, carbon, tubeless, eleven-speed, puncture-resistant
    chain lubricant, brake pads, tyre levers
Outdoor / Cycling / Lights and Locks
    front light, rear light, folding lock, chain lock
    USB-rechargeable, high-visibility, hardened-steel, compact
    mounting bracket, spare key set
Kitchen / Coffee / Coffee Makers
    espresso machine, drip coffee maker, moka pot, French press, cold brew maker
    programmable, stainless-steel, single-serve, twelve-cup, manual
    water filter, descaling tablets, milk frother
Kitchen / Coffee / Coffee Beans
    espresso beans, filter coffee beans, decaf beans, ground coffee
    dark-roast, single-origin, organic, fruity, chocolatey
    storage canister
Kitchen / Coffee / Grinders
    burr grinder, hand grinder, blade grinder
    conical, adjustable, quiet, travel-size
    grinder cleaning tablets, replacement burrs
Kitchen / Baking / Bakeware
    loaf pan, springform tin, muffin tray, baking sheet, pie dish
    non-stick, ceramic, aluminium, silicone, deep
    parchment paper, cooling rack
Kitchen / Baking / Stand Mixers
    stand mixer, hand mixer, dough kneader
    tilt-head, six-speed, bowl-lift, compact
    pasta roller attachment, spare mixing bowl
Kitchen / Knives / Chef Knives
    chef's knife, santoku, paring knife, bread knife, cleaver
    forged, Damascus-steel, serrated, Japanese-style, balanced
    whetstone, knife guard, magnetic strip
Electronics / Audio / Headphones
    over-ear headphones, wireless earbuds, studio headphones, sport earphones
    noise-cancelling, foldable, open-back, waterproof, wired
    replacement ear pads, carrying case
Electronics / Audio / Speakers
    bookshelf speakers, bluetooth speaker, soundbar, subwoofer
    portable, waterproof, wall-mounted, compact, powered
    speaker cable, speaker stands
Electronics / Audio / Turntables
    belt-drive turntable, automatic turntable, portable record player
    vintage-style, manual, two-speed, walnut
    replacement stylus, record brush
Electronics / Photography / Cameras
    mirrorless camera, compact camera, instant camera, action camera
    full-frame, beginner, rugged, retro-style, 4K
    memory card, spare battery, camera strap
Electronics / Photography / Lenses
    wide-angle lens, portrait lens, telephoto lens, macro lens
    fast, weather-sealed, manual-focus, compact
    lens filter, lens cap
Electronics / Smart Home / Lighting Systems
    smart bulb, light strip, smart lamp, motion sensor light
    colour-changing, dimmable, warm-white, outdoor
    extension kit, remote control
Electronics / Printing / Printers
    inkjet printer, laser printer, label printer, photo printer
    wireless, all-in-one, compact, duplex
    black ink cartridge, colour ink cartridge, photo paper
Garden / Plants / Seeds
    tomato seeds, wildflower seeds, herb seeds, pumpkin seeds, salad seeds
    heirloom, organic, early-season, drought-tolerant
    seed trays, plant labels
Garden / Plants / House Plants
    monstera, snake plant, peace lily, cactus, fern
    potted, hanging, low-light, pet-safe
    plant food, self-watering pot
Garden / Tools / Pruning Tools
    pruning shears, hedge trimmer, lopper, pruning saw
    cordless, bypass, telescopic, ergonomic
    sharpening file, replacement blade
Garden / Tools / Lawn Mowers
    robot mower, push mower, electric mower
    quiet, cordless, mulching, self-propelled
    spare mower blades, boundary wire
Garden / Outdoor Living / Barbecues
    charcoal grill, gas grill, smoker, pizza oven
    portable, three-burner, ceramic, cast-iron
    grill brush, charcoal briquettes, grill cover
Baby and Toys / Nursery / Strollers
    buggy, jogging stroller, travel stroller, double stroller
    foldable, all-terrain, lightweight, reversible
    stroller rain cover, cup holder
Baby and Toys / Nursery / Feeding
    baby bottle, high chair, bottle steriliser, baby food maker
    anti-colic, wooden, electric, travel
    replacement teats, silicone bibs
Baby and Toys / Play / Building Sets
    castle building set, space station building set, railway building set, robot building set
    500-piece, beginner, advanced, motorised
    base plates, extension bricks
Baby and Toys / Play / Board Games
    strategy board game, cooperative board game, family board game, deck-building game
    award-winning, two-player, fast, medieval, space-themed
    first expansion, second expansion, card sleeves
Baby and Toys / Play / Puzzles
    landscape jigsaw puzzle, animal jigsaw puzzle, city jigsaw puzzle, wooden puzzle
    1000-piece, 500-piece, panoramic, 3D
    puzzle glue, puzzle mat
Beauty / Skin Care / Face Care
    moisturiser, vitamin C serum, night cream, facial cleanser, clay mask
    hydrating, fragrance-free, anti-ageing, gentle, brightening
    refill pouch, cotton pads
Beauty / Skin Care / Sun Care
    sunscreen lotion, sun spray, after-sun gel, tinted sunscreen
    SPF 50, water-resistant, mineral, child-friendly
    travel-size tube
Beauty / Make-up / Nails
    nail polish, gel polish, top coat, nail art kit
    glossy, matte, quick-dry, glitter, pastel
    polish remover, nail file set
Beauty / Make-up / Lips
    lipstick, lip balm, lip gloss, lip liner
    satin, long-lasting, tinted, nourishing
    make-up remover
Beauty / Shaving / Razors
    safety razor, cartridge razor, electric shaver, beard trimmer
    chrome, cordless, sensitive, travel
    replacement blades, shaving cream, aftershave balm
Sports / Fitness / Weights
    adjustable dumbbells, kettlebell, barbell set, weight bench
    cast-iron, neoprene, compact, competition
    lifting gloves, floor mat
Sports / Fitness / Yoga
    yoga mat, meditation cushion, yoga block set, exercise ball
    cork, extra-thick, eco-friendly, non-slip
    yoga strap, mat cleaner
Sports / Running / Running Shoes
    road running shoes, trail running shoes, racing shoes
    cushioned, stability, lightweight, carbon-plated
    performance insoles, reflective laces
Sports / Racket Sports / Tennis
    tennis racket, junior racket, ball machine
    graphite, oversize, control, power
    tennis balls, overgrip, replacement strings
Music / Guitars / Acoustic Guitars
    dreadnought guitar, classical guitar, travel guitar, ukulele
    spruce-top, beginner, cutaway, mahogany
    phosphor-bronze strings, clip-on tuner, padded gig bag
Music / Keyboards / Digital Pianos
    digital piano, stage piano, MIDI keyboard, synthesizer
    88-key, weighted, portable, analog
    sustain pedal, keyboard stand, piano bench
Pets / Dogs / Dog Supplies
    dog bed, dog leash, dog harness, dry dog food, chew toy
    orthopaedic, reflective, grain-free, large-breed, puppy
    replacement cover, dog treats
Pets / Cats / Cat Supplies
    scratching post, cat tree, litter box, wet cat food, cat tunnel
    tall, self-cleaning, kitten, sisal, salmon
    litter refill, catnip toy
Pets / Aquariums / Fish Tanks
    glass aquarium, nano tank, reef tank, betta tank
    60-litre, rimless, starter, planted
    filter cartridge, fish food, water test kit
"""

# A leaf, then a line each: what a part is called; names of series; nouns of single titles
_SERIALS: Final = """
Books / Fiction / Fantasy
    Volume
    Ironwood, Dragonspire, Thornkeep, Moonfall, Runeweaver, Silverbough, Ashen Crown, Stormcaller
    dragon, sorcerer, kingdom, prophecy, sword, enchanted forest
Books / Fiction / Science Fiction
    Book
    Orbital Drift, Red Horizon, Quantum Exiles, Star Harbour, Machine Dawn, Europa Station, Deep Signal
    starship, android, colony, wormhole, galaxy, first contact
Books / Fiction / Crime
    Case
    Harbour Street, Detective Marlowe Finch, Cold River, Inspector Vane, Black Lantern, Midnight Ledger
    murder, alibi, detective, missing heiress, silent witness
Books / Fiction / Romance
    Part
    Willow Bay, Summer at Larkspur, Letters from Verona, Rosewood Hearts, Highland Promise
    wedding, secret admirer, second chance, love letter, island summer
Books / Comics / Manga
    Tome
    Blade of Kaito, Sakura High, Neon Ronin, Spirit Courier, Tiny Chef Hana
    samurai, high school, spirit world, cooking duel, mecha pilot
Books / Learning / Language Courses
    Level
    Spanish Step by Step, Everyday Japanese, French Conversations, Modern German, Italian on the Go
    grammar, vocabulary, phrasebook, verbs, listening practice
Film and TV / Series / Drama Series
    Season
    Harrow County, The Glass Parliament, Northern Docks, House of Kestrel, Paper Empire
    courtroom, dynasty, hospital, lighthouse, small town
Film and TV / Series / Documentary Series
    Episode Set
    Wild Rivers, Cities from Above, The Age of Steam, Oceans Unseen, Great Kitchens
    wildlife, railway, volcano, deep sea, ancient city
Games / Video Games / Adventure Games
    Chapter
    Lantern Isle, Clockwork Abbey, Sunken Crown, Echoes of Vaal, The Paper Detective
    puzzle, haunted manor, treasure map, time travel, lost temple
Games / Video Games / Racing Games
    Edition
    Apex Circuit, Desert Rally, Street Kings, Hill Climb Heroes
    rally car, drift, grand prix, motorbike, kart
"""

_BRAND_HEADS: Final = _words(
    "Hal, Nor, Bri, Vel, Tor, Mar, Kel, Ald, Fen, Gra, Lum, Ost, Pel, Quin, Ros, Sol, Tam, Ul, Ver, "
    "Wex, Yar, Zen, Cor, Dra, Ely, Ful, Hol, Ivo, Jan, Kor, Lin, Mon"
)
_BRAND_TAILS: Final = _words(
    "den, wick, dane, mont, sted, ria, vex, lund, berg, ton, mere, ova, brook, field, haven, crest"
)

FIRST_NAMES: Final = _words(
    "Ada, Boris, Clara, Dmitri, Elena, Felix, Greta, Hugo, Irene, Jonas, Katya, Leo, Mina, Nils, "
    "Olga, Pavel, Rosa, Stefan, Tilda, Viktor"
)
LAST_NAMES: Final = _words(
    "Ashdown, Bellweather, Carrow, Dunmore, Everhart, Fairbourne, Greystone, Hollis, Kestrel, "
    "Larkin, Mortlake, Norwood, Penhallow, Quill, Ravenscroft, Stirling, Thornbury, Underhill, "
    "Wexford, Yarrow"
)


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One leaf of the category tree and its words."""

    path: tuple[str, str, str]  # department, group, leaf
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...] = ()
    follow_ups: tuple[str, ...] = ()
    series: tuple[str, ...] = ()  # names of series; empty for goods
    part: str = ""  # what a part of a series is called: "Volume"


def leaves() -> tuple[Leaf, ...]:
    """All leaves of the tree, in a fixed order."""
    goods = [
        Leaf(path=path, nouns=_words(nouns), adjectives=_words(adjectives), follow_ups=_words(follow_ups))
        for path, (nouns, adjectives, follow_ups) in _entries(_GOODS)
    ]
    serials = [
        Leaf(path=path, part=part, series=_words(series), nouns=_words(nouns))
        for path, (part, series, nouns) in _entries(_SERIALS)
    ]
    return (*goods, *serials)


def _entries(text: str) -> list[tuple[tuple[str, str, str], list[str]]]:
    """Each leaf's path and the three lines below it."""
    lines = [line.strip() for line in text.strip().splitlines()]
    entries = []
    for head, *body in zip(lines[::4], lines[1::4], lines[2::4], lines[3::4], strict=True):
        department, group, leaf = head.split(" / ")
        entries.append(((department, group, leaf), body))
    return entries


def brand_names() -> tuple[str, ...]:
    """All invented brands (512), in a fixed order."""
    return tuple(head + tail for head in _BRAND_HEADS for tail in _BRAND_TAILS)
