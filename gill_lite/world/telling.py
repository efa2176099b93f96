"""How the world's texts tell of a scene: chances of 1, and sentences that tell nothing of it.

Stories say what happened and leave most of the look to the pictures, as VIST's do, and captions
are one short sentence, as the web's are. The chances were set by what an oracle could know in each
context (world.oracle), before any model was trained.
"""

WORLD = "told"  # its name in the weights' manifest; the one before was "described"
CAPTIONS = {"sentence": 0.7, "fragment": 0.85, "event": 1.0}  # the number below which a draw is it
OPENING = 0.3  # a story's first sentence mentions an attribute
CHANGE = 0.3  # a later sentence changes something
ADD = 0.25  # it tells something more; otherwise it only narrates
UNNAMED = 0.8  # it calls the object "it"
EPITHETS = 0.0  # it names it by a stated attribute, too ("the red ball"): as it is, never
VERB = "was"  # the tense of stories
KEY_WORDS = 0.15  # a restatement is key words
PLAIN = 0.2  # it is a caption without a lead
NARRATIVE = (
    "we had a nice time .",
    "everyone was happy .",
    "nobody wanted to leave .",
    "we took a lot of photos .",
    "what a sight !",
    "my friends came too .",
    "we sat down for a while .",
    "someone told a good story .",
    "they all played a game .",
    "{it} smiled at us .",
    "{it} waited for us .",
    "{it} sang a song .",
    "we could not stop laughing .",
    "it was so quiet .",
    "then we had lunch .",
    "i will never forget it .",
    "we talked for hours .",
    "the family was proud of {it} .",
    "{it} made a new friend .",
    "it was the best trip of the year .",
    "we listened to some music .",
    "time went by .",
    "everyone wanted to see {it} .",
    "nobody said a word .",
)
