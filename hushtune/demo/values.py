"""Names, places and codes that fill the slots of the demo's phrases; all of them invented.

Telephone numbers come from a range that is reserved for fiction, and mail domains from those that
are reserved for examples, so that no message points at a real person.
"""


def _words(text: str) -> list[str]:
    return text.split()


def _values(text: str) -> list[str]:
    return text.strip().replace("\n", "|").split("|")


FIRST_NAMES = _words("""
Ada Agnes Alfie Amara Anil Anja Arthur Astrid Beatrix Bela Benedict Bridie Callum Carmen Cedric
Chidi Clara Cormac Dagmar Dalia Declan Delphine Edda Edwin Elif Elodie Emeka Esther Farah Felix
Fenella Finn Gideon Greta Gwen Hamish Hanna Harriet Idris Imogen Ines Ivo Jasper Jolanta Juno Kofi
Leila Lennart Lorna Magnus Maud Milo Mireille Nadia Niamh Noor Odette Olu Oskar Petra Quentin
Rafael Rosalind Rufus Samir Saskia Selma Stellan Tamsin Tariq Thea Tobias Ursula Vera Wanda Wilf
Xenia Yara Yusuf Zelda
""")

LAST_NAMES = _words("""
Abara Aldous Amberley Balogun Barrowcliff Beckmann Birtles Bramhall Callow Chaudhry Copperwheat
Dankworth Demir Dunmore Eastlake Ekwueme Faulks Fennimore Ferreira Garrick Gildersome Gupta
Halvorsen Harkness Hollis Ibarra Ingleby Jankowski Jessop Kaminski Kettlewell Kilbride Lachlan
Lindqvist Lovelock Mahmood Marchbanks Merriweather Moreau Nakamura Nettleton Norgrove Okafor
Oldroyd Osei Papadakis Pemberly Petersen Quill Rahman Rainsford Rosewarne Sadler Santoro Silcock
Sorensen Tanaka Tiptree Tolliver Underhay Vance Varga Wainscott Weatherall Whitlam Yardley Zielinski
""")

STREETS = _values("""
Tansy Lane|Orchard Rise|Tannery Row|Mill Bank|Foxglove Close|Station Parade|Quarry Hill
Lower Weir Street|Candlemaker Yard|Heron Court|Bellfounder Road|Thistle Way|Cooper's Green
Old Ferry Road|Sparrow Gardens|Kiln Street|Rookery Avenue|Saddler's Walk|Willowbank|Harbour Steps
Plum Tree Terrace|Chapel Fold|Marlpit Lane|Sorrel Mews|Ropewalk|Upper Dene|Swift Crescent
Lantern Street|Bakehouse Hill|Gosling Drive|Priory Path|Larch Grove
""")

TOWNS = _words("""
Brockhurst Wexcombe Aldermere Pennyford Thornby Saltwick Harrowdale Eastmarch Lindry Caldbeckon
Ravensholt Mossford Dunsterley Whitcombe-on-Tarn Oxenby Farlow Netherbrook Skelling Highpool
Ashmarket Tolverton Kestwick
""")

SHOPS = _values("""
Corner Deli Pinto|Zephyr Games|Bluewhale Travel|Moda Lucca|Gadget Barn|Pump & Go|Kiosk 24
Sundial Hotels|Velvet Shoes|Tradewind Parts|Noodle Lab|Pixel Pawn|Club Havana Nine|Rapid Parcel
Golden Scooter|Mega Tickets
""")

AGENTS = _values("""
Priya|Marlon|Dana|Leopold|Shauna|Gareth|Wiktor|Bettina|Mr Halloran|Ms Oduya|Mrs Petrie|Mr Sand
""")

MONTHS = _words("""
January February March April May June July August September October November December
""")

DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

MAIL_DOMAINS = ["example.com", "example.org", "example.net", "mail.example", "post.example"]

# One favourite per intent, in the order of `hushtune.demo.messages.LABELS`: products that turn up
# more often with one intent than with another, as they do in real inboxes.
PLANS = ["Alder Fixed", "Brisk 100", "Calder Dual", "Dunlin Flex", "Ember Night", "Fathom Mobile"]
DEVICES = ["Nimbus box", "Lumo meter", "Torrin hub", "Pico repeater", "Tarn charger", "Wren reader"]

# What the company calls its own procedures. Nothing in a name gives away what it is for: that can
# be learned from labelled messages and from nowhere else.
PROCEDURES = {
    "cancellation": ["Larkspur", "a K7", "the Winslow file"],
    "refund": ["Bramble", "an M3", "the Ottoline file"],
    "billing_error": ["Tern", "a V9", "the Hartley file"],
    "relocation": ["Juniper", "a P5", "the Godwin file"],
    "fault": ["Osprey", "a Q2", "the Corbin file"],
    "fraud": ["Vesper", "a D8", "the Merle file"],
}
