"""Sentences and voices for the training set and the held-out set; the two share no sentence and no voice."""

from __future__ import annotations

import numpy as np

from .speech import Voice

SPLITS = ("train", "held-out")

_PEOPLE = (
    "my brother", "the baker", "our neighbour", "a young doctor", "the whole family", "an old friend", "the pilot",
    "everybody", "the mayor", "a famous painter", "my aunt", "the new teacher", "a good cook", "the farmer",
    "somebody", "the captain", "her father", "a small child", "the gardener", "one of the players",
)  # fmt: skip
_VERBS = (
    "bought", "found", "painted", "carried", "forgot", "opened", "repaired", "wanted", "borrowed", "described",
    "measured", "dropped", "photographed", "admired", "moved", "washed", "promised me", "showed us", "hid", "sold",
)  # fmt: skip
_THINGS = (
    "a big blue umbrella", "the wooden boat", "five warm apple pies", "a map of the moon", "the yellow bicycle",
    "some very old books", "a beautiful piano", "the broken window", "a cup of coffee", "a box of matches",
    "the garden shed", "two pairs of gloves", "the most valuable stamp", "a bowl of mushroom soup", "the church bell",
    "a loaf of brown bread", "every single photograph", "an empty suitcase", "the kitchen table", "a purple balloon",
)  # fmt: skip
_TIMES = (
    "before breakfast", "on a rainy Monday", "in the middle of the night", "last summer", "without a word",
    "for about four hours", "at the end of May", "in front of the museum", "near the old harbour", "by mistake",
    "after the long meeting", "on the way home", "for his mother's birthday", "as fast as possible",
    "while we were away", "because it was too cold", "when the music stopped", "above the post office",
)  # fmt: skip
TRAIN_SENTENCES = (
    "Peter and Paul pick a pound of purple plums.",
    "Mummy makes marmalade from many small oranges.",
    "Bob brought both of my black bags back.",
    "We wish you a wonderful weekend by the water.",
    "Oh no, I know, the boat is going slowly.",
    "Please feel free to keep these green leaves.",
    "Father's car was parked far from the farm.",
    "You should put the wool and the good book here.",
    "Nine, ten, eleven, twelve, thirteen and fourteen.",
    "Hello and welcome, it is so nice to meet you.",
    "The weather is lovely today, is it not?",
    "Could you move the chair a little to the left?",
    "That is an awfully large hat.",
    "Zebras and foxes rarely visit the same zoo.",
    "She sells fresh fish and chips on the shore.",
    "What a marvellous, marvellous view from above!",
    "I am happy to help, simply ask me anything.",
    "The train from Birmingham will arrive at platform five.",
    "Thank you for waiting; your table will be ready in a moment.",
    "Open the door, look around, and tell me what you see.",
    "My name is on the list, but nobody called me.",
    "Every evening we walk along the river and talk.",
    "Around the rough and rugged rocks the ragged rascal ran.",
    "A proper cup of coffee in a proper copper coffee pot.",
    "How much would it be for a room with two beds?",
    "Maybe. Perhaps. Possibly. I am not sure.",
    "Wow! Amazing! Bravo! Beautiful!",
    "One moment please, I am looking for my papers.",
    "The bees buzzed above the bushes by the barn.",
    "Warm wind blew over the wide open moor.",
)
HELD_OUT_SENTENCES = (
    "Good morning, and thank you for joining me; today we will bake a simple apple cake together.",
    "The quick brown fox jumps over the lazy dog, but the dog does not mind at all.",
    "Before we leave, make sure that both of the lamps are off and the back door is shut.",
    "I never thought that a bag of marbles could make so much noise on a marble floor.",
    "Imagine a small island with palm trees, a white beach, and a single blue house.",
    "Pam and Ben built a bamboo bridge above the pond; it wobbles, but it works.",
    "All of the boys and girls laughed when the puppet bumped its head.",
    "Would you like to hear about the weather? It will be foggy in the morning and warm later.",
    "Fifty seven people came to see the moon rise over the mountains.",
    "My favourite part of the film was when everybody opened their umbrellas.",
    "Always wash your hands, cover the pot, and let the rice rest for five minutes.",
    "Our ship sails at half past four from the harbour on the other side of town.",
)
_TRAIN_ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-029", "en-us-nyc", "en-gb-x-gbclan")
_TRAIN_VARIANTS = (
    "", "m1", "m3", "m4", "m5", "m7", "f1", "f2", "f4", "f5", "Andy", "Annie", "Alex", "Lee", "Michael", "Mike",
    "adam", "anika", "antonio", "belinda", "benjamin", "caleb", "david", "edward", "grandma", "ian", "john", "linda",
    "marcelo", "max", "norbert", "pablo", "paul", "quincy", "robert", "sandro", "shelby", "steph", "travis", "zac",
)  # fmt: skip
HELD_OUT_VOICES = (
    "en-gb-scotland+f3", "en-gb-scotland+m2", "en-gb-x-gbcwmd+m6", "en-gb-scotland+Alicia", "en-gb-x-gbcwmd+Andrea",
    "en-gb-scotland+m8", "en-gb-x-gbcwmd+miguel", "en-gb-scotland+victor",
)  # fmt: skip
_ONSETS = (
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "y", "z", "bl", "br", "ch",
    "cl", "cr", "dr", "fl", "fr", "gl", "gr", "kn", "pl", "pr", "sh", "sl", "sm", "sn", "sp", "st", "str", "sw", "th",
    "tr", "wh",
)  # fmt: skip
_NUCLEI = (
    "a", "e", "i", "o", "u", "ai", "ee", "ea", "oa", "oo", "ou", "ow", "oy", "ar", "er", "or", "ay", "igh", "au",
)  # fmt: skip
_CODAS = (
    "", "b", "ck", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "x", "ng", "nd", "nt", "mp", "st", "sh", "th",
    "ll", "ss", "ft", "lk", "rm",
)  # fmt: skip


def sample_text(rng: np.random.Generator, split: str) -> str:
    """One to three sentences, about 3 to 12 s of speech."""
    if split == "held-out":
        return HELD_OUT_SENTENCES[int(rng.integers(len(HELD_OUT_SENTENCES)))]
    sentences = []
    for _ in range(int(rng.integers(1, 3))):
        if rng.random() < 0.3:
            sentences.append(TRAIN_SENTENCES[int(rng.integers(len(TRAIN_SENTENCES)))])
            continue
        who, did, what, when = (words[int(rng.integers(len(words)))] for words in (_PEOPLE, _VERBS, _THINGS, _TIMES))
        order = (f"{who} {did} {what} {when}.", f"{when}, {who} {did} {what}.", f"{who} {did} {what}, {when}!")
        sentences.append(order[int(rng.integers(3))].capitalize())
    return " ".join(sentences)


def invented_text(rng: np.random.Generator) -> str:
    """Six to fourteen invented words of one to three syllables, for the sounds that a small vocabulary lacks."""
    words = []
    for _ in range(int(rng.integers(6, 15))):
        syllables = [
            _ONSETS[int(rng.integers(len(_ONSETS)))]
            + _NUCLEI[int(rng.integers(len(_NUCLEI)))]
            + _CODAS[int(rng.integers(len(_CODAS)))]
            for _ in range(1 + int(rng.integers(3)))
        ]
        words.append("".join(syllables))
    return " ".join(words) + "."


def sample_voice(rng: np.random.Generator, split: str) -> Voice:
    """A voice of the split with a random rate (130 to 210 words per minute), pitch and intonation."""
    if split == "held-out":
        name = HELD_OUT_VOICES[int(rng.integers(len(HELD_OUT_VOICES)))]
    else:
        accent = _TRAIN_ACCENTS[int(rng.integers(len(_TRAIN_ACCENTS)))]
        variant = _TRAIN_VARIANTS[int(rng.integers(len(_TRAIN_VARIANTS)))]
        name = f"{accent}+{variant}" if variant else accent
    pitch, spread = int(rng.integers(15, 86)), int(rng.integers(20, 81))
    return Voice(name, rate=int(rng.integers(130, 211)), pitch=pitch, pitch_range=spread)
