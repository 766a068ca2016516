#!/usr/bin/env python3
"""Writes `second.json` beside it: a second set of files and questions for `cargo xtask eval-find`, on which nothing was tuned.
Each file is a note about one thing between sentences that say nothing of it, chosen by a seed.

    python3 second.py
"""

import json
import random
from pathlib import Path

SEED = 2
NOTES = [
    ("The violin's bridge has warped and the A string whistles. Take it to the luthier in Mill Lane before the concert.", "my fiddle needs repairing"),
    ("Set the beehive scales to send the weight every hour; a drop of two kilos in ten minutes is a swarm.", "get warned when the bees fly off"),
    ("Three of the hens stopped laying. More oyster shell in the feed and a lamp in the coop until five.", "why are there no eggs"),
    ("The glacier hut closes on the twentieth. Crampons, rope, two ice screws each; start before four while the crust holds.", "equipment for climbing over ice"),
    ("Grafted the old pear on quince stock. Wax the cut, bind it with bast, and keep the goats away.", "propagating a fruit tree"),
    ("The kayak's skeg jams. Rinse out the sand, new cord through the housing, a drop of silicone oil.", "mending a small paddle boat"),
    ("Puppet theatre in the courtyard: the crocodile needs a new jaw, the king's robe is torn, curtain at six.", "a show with marionettes for kids"),
    ("Thread the loom with 240 ends of grey wool; herringbone, eight to the centimetre, selvedge in linen.", "weaving cloth"),
    ("The index on the orders table is bloated. Rebuild it concurrently at night and watch the replication lag.", "database maintenance without downtime"),
    ("Users are logged out because the token's clock is five minutes fast. Allow a skew, and renew before it expires.", "sessions end too early"),
    ("The cache stampedes at midnight when all keys expire together. Add jitter, and let one request fill it.", "many requests recompute the same entry at once"),
    ("Unit tests hang because a channel is never closed. The consumer waits for ever; close it when the last sender ends.", "a deadlock in the test suite"),
    ("Pickled gherkins: soak overnight in brine, dill, mustard seed, a vine leaf on top. Six weeks in the cellar.", "preserving cucumbers in jars"),
    ("Roast the chestnuts with a cross cut in the shell, twenty-five minutes, wrap them in a wet cloth.", "how to cook sweet nuts from the wood"),
    ("Cheese: warm the milk to 32 degrees, rennet, cut the curd into hazelnuts, press it under four kilos.", "turning milk into something that keeps"),
    ("The saddle rubs behind the withers. Thicker felt pad, and let the mare rest until the hair has grown back.", "a horse hurt by its tack"),
    ("Owl box on the north side of the barn, four metres up, sawdust inside. Clean it in October.", "a nesting place for night birds"),
    ("The toads cross Weir Road on the first warm wet evening in March. Buckets along the fence, count them at ten.", "help amphibians over the street"),
    ("Train tickets to Trieste: change in Villach, couchette booked, the dog travels free in a muzzle.", "a night journey by rail"),
    ("The campsite has no shade. Tarp, four poles, long pegs for the sand, and the big water can.", "protection from the heat while camping"),
    ("Dad's hip operation is on the sixth. Crutches from the chemist, raise the bed, no stairs for a month.", "recovering after surgery on a joint"),
    ("Ida has chickenpox: oatmeal bath, gloves at night, nursery not before the spots are dry.", "a child with an itchy rash"),
    ("The lawnmower starts and dies. Old petrol in the carburettor; drain it, clean the jet, new plug.", "garden machine with engine trouble"),
    ("Leak under the sink: the trap's washer is hard. Thirty-two millimetres, and a bucket for the meantime.", "water drips in the kitchen"),
    ("Sash window in the hall sticks. Candle wax on the runners, new cord, twelve metres.", "it is hard to slide the pane up"),
    ("The violet enamel came out cloudy. Two thin coats, 820 degrees, ninety seconds, let it cool slowly.", "firing coloured glass on metal"),
    ("Bind the guest book with five signatures, waxed thread, marbled paper for the ends.", "sewing pages together by hand"),
    ("Model railway: the points by the tunnel short out. Insulated joiners, and a second transformer.", "electric fault on the toy train"),
    ("Drone survey of the dyke: eighty per cent overlap, sixty metres, before the wind picks up at noon.", "aerial photographs of the embankment"),
    ("The barometer fell eleven hectopascals since breakfast. Storm by evening, bring in the awning.", "bad weather is on its way"),
    ("Sundial for the school wall: the gnomon points to the pole and leans at our latitude, 53 degrees.", "telling the hour from a shadow"),
    ("Ammonites in the lower shale, belemnites above. Wrap them in newspaper and note the bed.", "collecting fossils"),
    ("The heating oil tank holds 2,400 litres and is a fifth full. Order before the price goes up in October.", "fuel for the winter is running low"),
    ("Language exchange with Paolo on Tuesdays: half an hour of subjunctive, half an hour of gossip.", "practising Italian with somebody"),
    ("The allotment committee wants lower hedges and no bonfires. Vote on the fourth, bring the minutes.", "a meeting about garden rules"),
    ("Replace the smoke alarms on both floors. Ten-year batteries, not above the stove, test on the first of the month.", "get warned when something burns"),
    ("The tax office wants the receipts of 2022 again. Copies are in the green binder, originals stay here.", "papers that the authorities asked for"),
    ("Speech for Mira's retirement: the flooded archive, her rubber boots, thirty-one years, one sick day.", "a colleague stops working"),
    ("Swap the winter tyres before Easter. Torque 110, check the tread, the left rear loses air.", "changing the wheels of the car"),
    ("Night shift: bed nine needs turning every two hours, bed four is allergic to penicillin.", "notes for whoever looks after the patients"),
]
FILLERS = [
    "Ask Ruth about it.", "Not urgent.", "Put this on the list for Thursday.", "Done by half past eight, more or less.",
    "The number is on the back of the envelope.", "Same as last year.", "Remember the keys.", "To be checked again in a fortnight.",
    "Paid in cash.", "Nobody answered the phone.", "See the other note.", "Worth the trouble.",
]


def main():
    chosen = random.Random(SEED)
    files, questions = {}, []
    order = list(range(len(NOTES)))
    chosen.shuffle(order)
    for at, which in enumerate(order):
        text, ask = NOTES[which]
        before, after = chosen.sample(FILLERS, 2)
        name = f"second/note-{at:02}.{chosen.choice(['txt', 'md'])}"
        files[name] = f"{before} {text} {after}\n" if chosen.random() < 0.5 else f"{text} {before} {after}\n"
        questions.append({"class": "paraphrase", "query": ask, "expect": [name]})
    unrelated = [
        "the coronation of a queen", "a penalty in the last minute", "how to dye hair blond", "shares of a car maker", "a tango orchestra",
        "the Cuban missile crisis", "wrinkle cream", "a courtroom drama", "the discovery of penguins at the south pole", "a stag party",
        "contact lenses", "the caliphs of Baghdad", "a discus thrower", "bail for the accused", "an eyebrow piercing",
        "the gross national product", "a geisha with a fan", "a cruise ship buffet", "how to meditate", "the Bolshoi ballet",
        "a boxing promoter", "the Reformation", "a rap battle", "hip hop clothes", "a bishop's mitre",
        "the speed of light", "an Aztec temple", "a beauty salon", "the minister of defence", "a stand-up comedian",
        "a blood donor", "the Trojan war", "how to pluck eyebrows", "the price of gold", "a bullfight in Seville",
        "a polygamist sect", "varicose veins", "the moon landing conspiracy", "a cricket umpire", "a sauna with a plunge pool",
    ]
    path = Path(__file__).parent / "second.json"
    path.write_text(json.dumps({"files": files, "questions": questions, "unrelated": unrelated}, indent=1) + "\n")


if __name__ == "__main__":
    main()
