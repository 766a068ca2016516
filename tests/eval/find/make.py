#!/usr/bin/env python3
"""Writes the files of this folder's `files` again: what `cargo xtask eval-find` searches, beside the samples of the model that
ships. Everything in them is made up here. Needs Python alone; the same bytes on every machine.

    python3 make.py
"""

import io
import shutil
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent / "files"

NOTES = {
    "allotment.md": "# Allotment, plan for the season\n\nPeas and broad beans go in the bed by the shed in March. Courgettes need the compost heap's old place. The hose leaks at the second joint: bring tape. Slugs ate the lettuce last year, so copper rings this time.",
    "sourdough.md": "# Starter\n\nFeed it with equal weights of rye and water every evening. When it doubles in four hours it is strong enough for a loaf. Bake in the lidded iron pot, forty minutes covered and ten without the lid, until the crust sings.",
    "attic.txt": "Insulating the loft: 200 mm of sheep's wool between the rafters, vapour barrier on the warm side, tape every seam. Mr Okafor quoted 3,400 including the hatch. Ask whether the grant covers it.",
    "boiler.txt": "Boiler shows error F28 and goes out after ten seconds. Pressure was 0.6 bar, topped up to 1.4. Engineer booked for Tuesday between eight and noon; the spare key is with Lena next door.",
    "lighthouse.md": "# Trip to the Skerries\n\nFerry leaves at 07:40 and is often full. The keeper's cottage sleeps four; the lamp is automatic since 1987 but the stairs are open on Sundays. Take binoculars for the puffins.",
    "beekeeping.txt": "Hive two was light when I hefted it. Gave it two kilos of fondant. Saw the queen, marked blue, laying well in the middle frames. No varroa on the board this week. Order new foundation before the swarm season.",
    "chess-club.txt": "Thursday: Amira beat me with the Caro-Kann again. I castle too early and never get my knights out. Homework: rook endings, chapter nine.",
    "piano.txt": "Practise the left hand of the nocturne alone, slowly, with the metronome at 54. The pedal blurs the change of harmony in bar seventeen. Tuner comes on the ninth.",
    "marathon-training.md": "# Long runs\n\nWeek six: 24 kilometres along the canal, easy pace. Left shin hurts after the hill repeats, so swap Wednesday for the pool. New shoes are due after 700 kilometres.",
    "book-group.txt": "Next meeting at Ines's flat. We read the novel about the cartographer who loses his sight. Questions: is the narrator honest, and why does the river change its name?",
    "passwords-hint.txt": "The recovery sheet for the password manager is in the blue folder behind the atlas. Two printed copies, neither in the cloud.",
    "sailing-course.txt": "Knots for the exam: bowline, clove hitch, figure of eight, sheet bend. Port is left and red, starboard right and green. Reef before you think you need to.",
    "dentures-dog.txt": "Rex chewed the corner of the sofa and half a slipper. The trainer says he is bored: a longer walk before breakfast, and the rubber toy with peanut butter inside.",
    "vet.txt": "The kitten's second injection is due on the 14th. Worm tablet hidden in pâté works. She weighs 1.9 kg. Neutering from five months on.",
    "eclipse.md": "# Watching the eclipse\n\nTotality lasts two minutes and eighteen seconds at the reservoir. Cardboard viewers for the children. A colander makes hundreds of little crescents on the ground.",
    "telescope.txt": "Collimated the mirror with the cheshire eyepiece. Saturn's rings were sharp at 150 times, the Cassini division came and went. Dew heater battery lasts three hours.",
    "mushrooms.txt": "Found chanterelles under the birches beyond the quarry and two parasols by the gate. The pale one with the ring and the bulb stays in the wood: death cap.",
    "first-aid.md": "# Course notes\n\nThirty compressions, two breaths, to the beat of the song everybody knows. Burns: cool running water for twenty minutes, no butter, no ice. Press hard on a bleeding wound and raise it.",
    "guitar-strings.txt": "Light gauge 12-53 for the acoustic. Stretch them, tune, stretch again. The saddle buzzes on the G: file the slot or pack it with a bit of card.",
    "kiln.txt": "Bisque firing to 1000 degrees, 100 an hour until 600. The celadon ran on the tall vase; thinner coat at the foot. Cone 9 bent, cone 10 just leaning.",
    "compost.txt": "Heap is too wet and smells of ammonia. Turn it, add torn cardboard and straw. Worms are back in the lower third. Ready by autumn if the heat returns.",
    "darkroom.txt": "Develop eleven minutes at 20 degrees, agitate every thirty seconds. Fixer is exhausted when the clearing time doubles. The enlarger's bulb is a 75 watt opal.",
    "router.txt": "The new router drops the upstairs connection every evening at about nine. Channel 6 is crowded; moved to 11. Firmware 4.2.1 is said to mend it.",
    "backup-plan.md": "# Three, two, one\n\nThree copies, two kinds of disk, one of them at Dad's. Restore something every quarter: a copy that nobody has read back is a hope.",
    "tax-shed.txt": "Receipts for the workshop: bandsaw blade 38.50, beeswax 12, sandpaper 9.90, oak offcuts 60. Keep the ones over fifty for the accountant.",
    "birthday-nora.txt": "Nora turns seven. Treasure hunt in the park with six clues, the last one inside a pineapple. Cake with a dragon. No nuts because of Tom.",
    "moving.md": "# Moving list\n\nTwo weeks before: transfer electricity, redirect the post, thaw the freezer. On the day: meter readings with photographs, kettle in the first box, cat in the bathroom.",
    "language.txt": "Twenty words of Finnish a day. Cases again: inessive is in, elative out of, illative into. Kissa istuu talossa.",
    "coffee-grinder.txt": "Grinder set to 14 for the moka pot, 22 for filter. Beans from the roaster on Mill Lane, roasted on the third, best after a week. Descale the machine monthly.",
    "interview.txt": "Candidate for the data team. Explained the difference between precision and recall without jargon. Weak on testing, honest about it. Would work four days. Second talk with Priya.",
    "standup.md": "# Monday\n\nThe importer still duplicates rows when the connection drops in the middle of a page. Yusuf takes it. Release waits until the migration has run on the copy.",
    "retro.md": "# What we learned\n\nThe outage lasted forty minutes because the alarm went to a mailbox nobody reads. From now on it rings the person on duty. Runbooks get a date and an owner.",
    "roadmap.md": "# Next half year\n\nOffline mode first, then shared lists, then the widget. Dark theme is asked for most and cheap. No new platform before the sync is trustworthy.",
    "mvcc.md": "# Multi-version concurrency control\n\nReaders see a snapshot and never block writers. Each row carries the transaction that made it and the one that ended it; vacuum removes versions that no snapshot can see.",
    "raft.md": "# Consensus\n\nA leader is elected by majority for a term. Entries are appended to its log and copied to followers; one is committed when most of them have it. Split votes are rare because timeouts are random.",
    "bloom.md": "# Bloom filters\n\nA bit array and k hash functions. Says surely absent or perhaps present. With ten bits an element about one per cent of the answers are false positives.",
    "tides.txt": "High water at the harbour bar 06:12 and 18:37, springs on Friday. We can cross two hours either side. Bilge pump tested, flares expire next year.",
    "orchid.txt": "Repotted the orchid in bark. Cut the brown roots, kept the green ones. Water from below once a week, no sun at noon; a new flower stem shows by the window.",
    "bike-fit.txt": "Saddle up by 8 mm and back by 4. Knees no longer ache after sixty kilometres. The chain skips on the smallest cog: worn cassette, order eleven speeds.",
    "insulin.txt": "Grandpa's pen: six units before breakfast, check the meter first. Sugar lumps in the glove compartment. Clinic's night number is on the fridge.",
    "museum-volunteer.txt": "Saturday shift at the railway museum. Polish the brass on the tank engine, oil the turntable, tell children not to climb on the buffers.",
    "choir.txt": "Altos enter on the third beat of bar 40, not before. Breathe after 'lux'. Concert dress is black with a green scarf.",
    "wallpaper.txt": "Living room: soak the old paper with warm water and a drop of washing-up liquid, score it, scrape. Fill the cracks, sand, size. Eleven rolls, pattern repeat 64 cm.",
    "aquarium.txt": "Nitrite is at zero, nitrate 20. Changed a quarter of the water. The neon tetras shoal under the driftwood and the catfish has laid eggs on the glass.",
    "snow.txt": "Pass closed above the tree line; avalanche danger four of five on northern slopes. Snowshoes instead of skis, turn round at the chapel.",
    "pottery-sale.txt": "Sold nine mugs and the big platter at the fair. People asked for lidded jars. Next time bring change and a lamp.",
    "stargazing-children.txt": "The Plough points to the Pole Star. Show them the Pleiades: count how many they see without the glasses. Cocoa afterwards.",
    "crossword.txt": "Clues I liked: 'Flower of London (6)' is THAMES, because it flows. 'Gegs (9,4)' is scrambled eggs.",
    "rent.txt": "Landlord wants to raise the rent by six per cent from May. The index allows four. Write before the end of the month, registered post.",
    "shoes-repair.txt": "Cobbler on Quay Street resoles walking boots for 55, a week's wait. Ask for the harder rubber.",
}

CODE = {
    "lru_cache.py": '''"""A cache that forgets what was used least recently."""
from collections import OrderedDict


class LruCache:
    def __init__(self, capacity):
        self.capacity = capacity
        self.items = OrderedDict()

    def get(self, key, default=None):
        if key not in self.items:
            return default
        self.items.move_to_end(key)
        return self.items[key]

    def put(self, key, value):
        self.items[key] = value
        self.items.move_to_end(key)
        if len(self.items) > self.capacity:
            self.items.popitem(last=False)
''',
    "dijkstra.py": '''import heapq


def shortest_paths(graph, start):
    """Distances from start to every node of a graph with weighted edges."""
    distance = {start: 0}
    queue = [(0, start)]
    while queue:
        so_far, node = heapq.heappop(queue)
        if so_far > distance.get(node, float("inf")):
            continue
        for neighbour, weight in graph[node]:
            candidate = so_far + weight
            if candidate < distance.get(neighbour, float("inf")):
                distance[neighbour] = candidate
                heapq.heappush(queue, (candidate, neighbour))
    return distance
''',
    "retry.go": '''package retry

import "time"

// Do calls f until it succeeds, waiting twice as long after each failure.
func Do(attempts int, first time.Duration, f func() error) error {
	wait := first
	var err error
	for i := 0; i < attempts; i++ {
		if err = f(); err == nil {
			return nil
		}
		time.Sleep(wait)
		wait *= 2
	}
	return err
}
''',
    "debounce.js": '''// Calls fn once the caller has been quiet for `ms` milliseconds.
export function debounce(fn, ms) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => fn(...args), ms);
  };
}
''',
    "matrix.rs": '''/// Multiplies two square matrices of side `n`, row by row.
pub fn multiply(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * n];
    for i in 0..n {
        for k in 0..n {
            for j in 0..n {
                out[i * n + j] += a[i * n + k] * b[k * n + j];
            }
        }
    }
    out
}
''',
    "ring_buffer.c": '''/* A fixed-size queue for one producer and one consumer, without locks. */
#include <stdatomic.h>
#include <stdbool.h>
#define SIZE 1024

static int slots[SIZE];
static atomic_uint head, tail;

bool push(int value) {
    unsigned t = atomic_load(&tail);
    if (t - atomic_load(&head) == SIZE) return false;
    slots[t % SIZE] = value;
    atomic_store(&tail, t + 1);
    return true;
}
''',
    "leap_year.rb": '''# The Gregorian rule: every fourth year, not the centuries, but every fourth century.
def leap?(year)
  (year % 4).zero? && (!(year % 100).zero? || (year % 400).zero?)
end
''',
    "invoice_totals.sql": '''-- What each customer owes, and since when.
SELECT c.name, SUM(i.amount - i.paid) AS outstanding, MIN(i.due_on) AS oldest
FROM invoices i JOIN customers c ON c.id = i.customer_id
WHERE i.paid < i.amount
GROUP BY c.name
HAVING SUM(i.amount - i.paid) > 0
ORDER BY outstanding DESC;
''',
    "rotate_logs.sh": '''#!/bin/sh
# Keeps the last seven days of logs and packs the rest.
find /var/log/app -name '*.log' -mtime +1 -exec gzip {} +
find /var/log/app -name '*.log.gz' -mtime +7 -delete
''',
    "levenshtein.ts": '''/** Number of letters to insert, delete or exchange to turn one word into another. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    let diagonal = row[0];
    row[0] = i;
    for (let j = 1; j <= b.length; j++) {
      const above = row[j];
      row[j] = Math.min(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] === b[j - 1] ? 0 : 1));
      diagonal = above;
    }
  }
  return row[b.length];
}
''',
    "thermostat.ino": '''// Switches the relay on below 19 degrees and off above 21.
const int RELAY = 7;
void loop() {
  float celsius = readSensor();
  if (celsius < 19.0) digitalWrite(RELAY, HIGH);
  if (celsius > 21.0) digitalWrite(RELAY, LOW);
  delay(5000);
}
''',
    "Dockerfile.toml": '''# Settings of the image builder
[image]
base = "debian:12-slim"
user = "nobody"
expose = [8080]
healthcheck = "curl -f http://localhost:8080/ready"
''',
    "password_hash.java": '''/** Stores a salted, stretched digest instead of the password itself. */
final class PasswordHash {
    static byte[] derive(char[] secret, byte[] salt) throws Exception {
        var spec = new javax.crypto.spec.PBEKeySpec(secret, salt, 600_000, 256);
        var factory = javax.crypto.SecretKeyFactory.getInstance("PBKDF2WithHmacSHA256");
        return factory.generateSecret(spec).getEncoded();
    }
}
''',
    "csv_reader.lua": '''-- Splits one line of comma separated values, with quoted fields.
local function fields(line)
  local out, rest = {}, line .. ","
  for quoted, plain in rest:gmatch('"?(.-)"?(,)') do out[#out + 1] = quoted end
  return out
end
return fields
''',
    "sieve.hs": '''-- Prime numbers, each found by crossing out the multiples of the ones before.
primes :: [Int]
primes = go [2 ..] where go (p : rest) = p : go [n | n <- rest, n `mod` p /= 0]
''',
    "quaternion.cpp": '''// Turns a vector about an axis without gimbal lock.
struct Quaternion { double w, x, y, z; };
Quaternion operator*(const Quaternion& a, const Quaternion& b) {
    return {a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
            a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w};
}
''',
    "nginx.conf": '''# Sends plain requests to the encrypted port and hands the rest to the application.
server { listen 80; return 301 https://$host$request_uri; }
server { listen 443 ssl; location / { proxy_pass http://127.0.0.1:8080; } }
''',
    "haversine.py": '''from math import asin, cos, radians, sin, sqrt


def great_circle_km(lat1, lon1, lat2, lon2):
    """Distance between two places on the globe."""
    lat1, lon1, lat2, lon2 = map(radians, (lat1, lon1, lat2, lon2))
    h = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * 6371 * asin(sqrt(h))
''',
}

MAIL = {
    "flight-change.eml": ("Booking <no-reply@skyline.example>", "Your flight has been moved", "Dear passenger, flight SK 482 to Lisbon now departs at 14:55 instead of 11:20. Your seats 17A and 17B are kept. You may change or cancel without charge."),
    "parcel.eml": ("Courier <track@parcel.example>", "We missed you", "Nobody was at home at 10:42. Your parcel waits at the kiosk in Harbour Road for seven days. Bring this code: 7741-KX."),
    "school.eml": ("Office <office@elmschool.example>", "Class trip to the planetarium", "On Wednesday class 4b visits the planetarium. Please give your child a packed lunch and a coat. The bus returns at half past three."),
    "band-practice.eml": ("Jo <jo@band.example>", "Rehearsal moved", "The cellar is flooded again so we play at Mo's garage on Sunday. Bring your own amp. We should settle the order of songs for the wedding."),
    "lost-glove.eml": ("Theatre <desk@grandtheatre.example>", "Lost property", "A grey woollen glove was found in row F after the performance. It can be picked up at the cloakroom until Saturday."),
    "server-alert.eml": ("monitor@ops.example", "Disk almost full on db-3", "Partition /var is at 94 per cent and grows by two per cent an hour. Old write-ahead logs are the likely cause. Acknowledge within thirty minutes."),
    "recipe-aunt.eml": ("Aunt Vera <vera@family.example>", "The plum cake you asked for", "Rub butter into flour and sugar, press it into the tin, stand the halved plums close together, cinnamon over it, fifty minutes in a hot oven. Your grandfather liked it with cream."),
    "conference.eml": ("Programme <talks@rustdays.example>", "Your talk was accepted", "We are glad to tell you that 'Memory you can trust' is on the programme, Friday at eleven, hall two. Please send slides by the first of June."),
    "adoption.eml": ("Shelter <paws@shelter.example>", "About Biscuit", "Biscuit, the terrier you met, is free to move in from Monday. He knows how to sit and does not like hoovers. Please bring a lead."),
    "library.eml": ("Town library <loans@library.example>", "Items due soon", "Three items are due on the 21st: 'Field guide to ferns', 'Knots and splices', 'A short history of salt'. You can renew them twice."),
    "gym.eml": ("Studio <hello@climbwall.example>", "New routes this week", "Fresh boulder problems in the cave and two hard lines on the lead wall. Chalk bags are half price on Thursday."),
    "hotel.eml": ("Pension Edelweiss <stay@edelweiss.example>", "Your stay in the mountains", "We have reserved a double room with a balcony for three nights. Breakfast is from seven. The cable car stops at half past four."),
}

TABLES = {
    "harvest.csv": "year,apples kg,pears kg,quinces kg,remark\n2021,340,85,12,late frost\n2022,510,120,30,good\n2023,95,40,22,hail in June\n2024,460,150,41,best pears so far\n",
    "temperatures.csv": "station,month,mean celsius,rain mm\nHarbour,January,3.1,92\nHarbour,July,17.4,61\nSummit,January,-8.9,140\nSummit,July,6.2,118\n",
    "expenses.csv": "date,what,amount,paid by\n2024-03-02,train tickets Hamburg,138.00,Lena\n2024-03-02,hostel two nights,96.00,Yusuf\n2024-03-03,boat tour,44.00,Lena\n2024-03-04,falafel,17.50,me\n",
    "bird-count.csv": "species,garden,park,shore\nblackbird,14,22,0\ngreat tit,31,18,0\noystercatcher,0,0,47\nheron,0,2,5\n",
    "league.csv": "club,played,won,drawn,lost,points\nHarriers,22,15,4,3,49\nRovers,22,13,5,4,44\nAthletic,22,6,3,13,21\n",
    "inventory.csv": "part,shelf,count,reorder at\nbearing 6204,A3,18,10\nV-belt A42,A4,3,5\nfuse 10 A,B1,250,100\nhydraulic hose,C2,7,4\n",
}

HTML = {
    "opening-hours.html": ("Swimming baths: opening hours", "<p>The baths open at half past six on weekdays. Lanes are reserved for clubs from five to seven in the evening. Closed for cleaning in the first week of August.</p>"),
    "tent-manual.html": ("Pitching the tent", "<ol><li>Lay out the groundsheet with the door away from the wind.</li><li>Slide the long poles through the blue sleeves.</li><li>Peg the corners, then guy out the storm lines.</li></ol>"),
    "volcano.html": ("How a geyser works", "<p>Water in a narrow shaft is heated by hot rock below. Under pressure it boils only above a hundred degrees; when the first bubbles push some of it out, the rest flashes into steam.</p>"),
    "tea.html": ("Brewing green tea", "<p>Seventy degrees, two minutes. Hotter water makes it bitter. The second infusion of the same leaves is the best one.</p>"),
    "glaciers.html": ("Why glaciers are blue", "<p>Dense ice without bubbles swallows red light and lets blue through. Where the snow is young it scatters every colour and looks white.</p>"),
    "accessibility.html": ("Pages for everybody", "<p>Every control can be reached by keyboard and says its name to a screen reader. Contrast is at least 4.5 to 1. Nothing flashes.</p>"),
    "silk.html": ("From cocoon to thread", "<p>A caterpillar spins a kilometre of filament. The cocoons are softened in hot water and several ends are reeled together.</p>"),
    "clockwork.html": ("The escapement", "<p>It lets the train of wheels move one tooth at each swing of the pendulum, and gives the pendulum a small push in return. That is the tick.</p>"),
    "mangroves.html": ("Forests with their feet in salt water", "<p>Mangrove roots stand like stilts in the mud, calm the waves, and are a nursery for fish and crabs. Cut them down and the coast washes away.</p>"),
    "sextant.html": ("Finding your position by the sun", "<p>Measure the height of the sun above the horizon at noon. With the almanac that gives your latitude; the exact time gives your longitude.</p>"),
}

# Letters and essays as DOCX: title, paragraphs.
DOCX = {
    "complaint-train.docx": ("Letter to the railway", ["Dear Sir or Madam,", "On the third of February the 17:08 was eighty minutes late and the heating in the last carriage did not work. I missed my connection and paid 64 for a taxi.", "I ask for the fare and the taxi to be refunded."]),
    "lease.docx": ("Tenancy agreement", ["The tenant pays 940 a month, due on the third working day.", "Pets are allowed after asking. The tenant may not drill into the bathroom tiles.", "Either side may end this agreement with three months' notice."]),
    "eulogy.docx": ("For Uncle Bram", ["He could mend anything with wire and patience.", "He taught us to whistle on grass, to read the clouds, and never to lend a chisel.", "We will miss his terrible puns."]),
    "grant.docx": ("Application: a wildflower meadow for the churchyard", ["We ask for 1,800 to sow native seed on half an acre and to put up a bench.", "Mowing twice a year with a scythe lets orchids and yellow rattle come back, and the butterflies with them."]),
    "cover-letter.docx": ("Application as a carpenter", ["I learned my trade in a boatyard and built stairs for eleven years.", "I would like to work on restoring timber-framed houses and can start in September."]),
    "essay-bridges.docx": ("Why suspension bridges sway", ["A deck hung from cables is light and long, and wind that sheds eddies at the right pace can set it swinging.", "Stiff trusses, slots in the deck and dampers take the energy away."]),
}

# Sheets as XLSX: rows.
XLSX = {
    "budget.xlsx": [["Household budget", "planned", "spent"], ["groceries", 520, 548], ["electricity", 95, 101], ["music lessons", 120, 120], ["savings", 400, 350]],
    "shifts.xlsx": [["Duty roster", "Monday", "Tuesday", "Wednesday"], ["early", "Aylin", "Marek", "Aylin"], ["late", "Marek", "Sofia", "Jonas"], ["night", "Jonas", "Jonas", "Sofia"]],
    "wine-cellar.xlsx": [["Cellar", "vintage", "bottles", "drink by"], ["Riesling Steep Slope", 2019, 6, 2027], ["Barolo", 2016, 3, 2035], ["Cider, dry", 2023, 12, 2025]],
    "seed-order.xlsx": [["Seeds", "packets", "price"], ["runner beans", 3, 2.4], ["beetroot", 2, 1.9], ["sunflower giant", 1, 2.8], ["chard", 2, 2.1]],
}

# Printed pages as PDF: pages of lines.
PDF = {
    "washing-machine.pdf": [["Washing machine WX 7, short guide"], ["Error codes", "E10: the tap is closed or the hose is kinked.", "E20: clean the lint filter behind the small door.", "E40: the door is not shut."], ["Cleaning", "Run the drum empty at 90 degrees once a month.", "Wipe the rubber seal dry and leave the door ajar."]],
    "hiking-map-legend.pdf": [["Legend of the hiking map 1:25 000", "A dashed red line is a path for sure-footed walkers.", "A blue triangle is a mountain hut with a warden.", "Brown lines join places of equal height, twenty metres apart."]],
    "boarding-rules.pdf": [["Carriage of musical instruments", "A violin in its case may be taken on board as hand luggage.", "A cello needs a seat of its own, booked with the ticket."], ["Liquids", "Containers above 100 ml go into the hold."]],
    "annual-report-choir.pdf": [["The choir's year", "We sang nine concerts, three of them in hospitals."], ["Money", "Income 14,210. Sheet music was the largest cost.", "The treasurer was thanked."]],
    "vaccination-cat.pdf": [["Certificate", "The cat Mimi was given her yearly vaccine against feline flu."]],
    "recipe-book.pdf": [["Soups", "Leek and potato: sweat the leeks in butter, add stock, simmer, blend."], ["Bread", "Flat bread: flour, yoghurt, a little salt; dry pan, high heat."], ["Puddings", "Rhubarb crumble: sugar, oats, ginger; bake until it bubbles."]],
    "solar-offer.pdf": [["Offer 2231", "Fourteen panels of 430 watts on the south roof, inverter in the cellar.", "Expected yield 5,900 kilowatt hours a year."]],
    "bee-law.pdf": [["Keeping bees in gardens", "Hives stand at least five metres from the boundary.", "A source of water is to be kept nearby."]],
}

# Books as EPUB: title, chapters.
EPUB = {
    "the-salt-road.epub": ("The Salt Road", ["Chapter one. The mules knew the way over the pass better than any man. Each carried two blocks wrapped in straw, and the bell of the first told the last where the path turned.", "Chapter two. At the toll house the widow weighed the blocks, licked her finger, and named a price that nobody dared to argue with."]),
    "winter-harbour.epub": ("Winter Harbour", ["Part one. When the ice came early the fishing boats froze into the basin like flies in amber, and the children skated between the hulls.", "Part two. In March the harbour master fired the old cannon to break the floes, and every window in Quay Street rang."]),
}

RTF = {
    "minutes-garden-club.rtf": "Minutes of the gardening club. The talk on pruning roses drew thirty people. The plant swap is on the second Saturday in May. Somebody has walked off with the good secateurs.",
    "radio-play.rtf": "Scene four. Rain on a tin roof. MARTA: You came back for the letters. PAUL: I came back for the dog. A door slams; the dog barks twice.",
}


def put(name, data):
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def archive(parts):
    """A ZIP file without times; the first part is stored, as EPUB wants it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for at, (name, text) in enumerate(parts):
            about = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            about.compress_type = zipfile.ZIP_STORED if at == 0 else zipfile.ZIP_DEFLATED
            file.writestr(about, text)
    return out.getvalue()


def core(title):
    return ('<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties" '
            f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{escape(title)}</dc:title></cp:coreProperties>')


def docx(title, paragraphs):
    body = "".join(f"<w:p><w:r><w:t>{escape(text)}</w:t></w:r></w:p>" for text in [title, *paragraphs])
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    return archive([("[Content_Types].xml", "<Types/>"), ("docProps/core.xml", core(title)),
                    ("word/document.xml", f'<w:document xmlns:w="{space}"><w:body>{body}</w:body></w:document>')])


def xlsx(rows):
    def cell(value):
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return f"<c><v>{value}</v></c>"
    body = "".join("<row>" + "".join(map(cell, row)) + "</row>" for row in rows)
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return archive([("[Content_Types].xml", "<Types/>"),
                    ("xl/workbook.xml", f'<workbook xmlns="{space}"><sheets><sheet name="Sheet1" sheetId="1"/></sheets></workbook>'),
                    ("xl/worksheets/sheet1.xml", f'<worksheet xmlns="{space}"><sheetData>{body}</sheetData></worksheet>')])


def epub(title, chapters):
    items = "".join(f'<item id="c{i}" href="c{i}.xhtml" media-type="application/xhtml+xml"/>' for i in range(len(chapters)))
    spine = "".join(f'<itemref idref="c{i}"/>' for i in range(len(chapters)))
    package = ('<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
               f"<dc:title>{escape(title)}</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>")
    container = ('<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
                 '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>')
    pages = [(f"c{i}.xhtml", f'<html xmlns="http://www.w3.org/1999/xhtml"><body><p>{escape(text)}</p></body></html>')
             for i, text in enumerate(chapters)]
    return archive([("mimetype", "application/epub+zip"), ("META-INF/container.xml", container), ("book.opf", package), *pages])


def pdf(pages):
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    for i, lines in enumerate(pages):
        shown = "".join("(" + line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)") + ") Tj T*\n" for line in lines)
        body = f"BT /F1 12 Tf 14 TL 72 720 Td\n{shown}ET"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R "
                       "/Resources << /Font << /F1 3 0 R >> >> >>")
        objects.append(f"<< /Length {len(body)} >>\nstream\n{body}\nendstream")
    out, places = b"%PDF-1.4\n", []
    for i, text in enumerate(objects):
        places.append(len(out))
        out += f"{i + 1} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{at:010} 00000 n \n" for at in places)
    out_end = f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n{table}trailer << /Size {len(places) + 1} /Root 1 0 R >>\n"
    return out + out_end.encode() + f"startxref\n{len(out)}\n%%EOF".encode()


def main():
    if HERE.exists():
        shutil.rmtree(HERE)
    for name, text in NOTES.items():
        put(f"notes/{name}", text + "\n")
    for name, text in CODE.items():
        put(f"code/{name}", text)
    for name, (sender, subject, text) in MAIL.items():
        put(f"mail/{name}", f"From: {sender}\r\nTo: me@home.example\r\nSubject: {subject}\r\n\r\n{text}\r\n")
    for name, text in TABLES.items():
        put(f"tables/{name}", text)
    for name, (title, body) in HTML.items():
        put(f"web/{name}", f"<!doctype html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1>{body}</body></html>\n")
    for name, (title, paragraphs) in DOCX.items():
        put(f"documents/{name}", docx(title, paragraphs))
    for name, rows in XLSX.items():
        put(f"tables/{name}", xlsx(rows))
    for name, pages in PDF.items():
        put(f"papers/{name}", pdf(pages))
    for name, (title, chapters) in EPUB.items():
        put(f"books/{name}", epub(title, chapters))
    for name, text in RTF.items():
        put(f"documents/{name}", "{\\rtf1\\ansi " + text + "}")


if __name__ == "__main__":
    main()
