"""A small writer of JPEG files in forms that libraries read and do not write. ITU-T T.81; sections are its own.

Planes of samples go through a floating-point transform and one quantiser; what is written then is chosen: sampling factors,
scans in any order, sequential or progressive, Huffman codes of T.81 K.3 or flat ones (every symbol in 8 or 9 bits),
arithmetic coding, restart markers, tables of 8 or 16 bits, or none.
"""
import struct

import numpy as np

ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8)))


def segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def scan(parts, first=0, last=63, high=0, low=0):
    """Components, first and last coefficient, bits seen before, lowest bit."""
    return tuple(parts), first, last, high, low


def transform(plane):
    """[h, w] samples, whole blocks, into [rows, columns, 64] coefficients in rows."""
    k, n = np.mgrid[0:8, 0:8]
    basis = np.cos((2 * n + 1) * k * np.pi / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    h, w = plane.shape
    blocks = plane.reshape(h // 8, 8, w // 8, 8).transpose(0, 2, 1, 3) - 128.0
    return (basis @ blocks @ basis.T).reshape(h // 8, w // 8, 64)


class Bits:
    """Huffman codes and plain bits; flat codes give every symbol 8 or 9 bits."""

    def __init__(self):
        self.sum, self.count, self.out = 0, 0, bytearray()

    def put(self, value, bits):
        self.sum, self.count = (self.sum << bits) | value, self.count + bits
        while self.count >= 8:
            self.count -= 8
            byte = (self.sum >> self.count) & 255
            self.out += bytes([byte, 0] if byte == 255 else [byte])
            self.sum &= (1 << self.count) - 1

    def symbol(self, table, symbol):
        self.put(*table[symbol])

    def flush(self):
        if self.count:
            self.put((1 << (8 - self.count)) - 1, 8 - self.count)
        return bytes(self.out)


def codes(counts, symbols):
    """C.2: symbol to (code, bits)."""
    table, code, at = {}, 0, 0
    for bits in range(1, 17):
        for _ in range(counts[bits - 1]):
            table[symbols[at]] = (code, bits)
            code, at = code + 1, at + 1
        code <<= 1
    return table


# Means have 16 symbols of 5 bits, other coefficients 256 of 8 or 9 bits.
FLAT_MEANS = ([0] * 4 + [16] + [0] * 11, list(range(16)))
FLAT = ([0] * 7 + [254, 2] + [0] * 7, list(range(256)))


def size_of(value):
    return abs(int(value)).bit_length()


def extra(value, bits):
    return int(value) if value >= 0 else int(value) + (1 << bits) - 1


class HuffmanCoder:
    def __init__(self, tables):
        self.tables, self.bits = tables, Bits()
        self.restart()

    def restart(self):
        self.before = [0] * 4

    def mean(self, c, value):
        difference = int(value) - self.before[c]
        self.before[c] = int(value)
        bits = size_of(difference)
        self.bits.symbol(self.tables[0], bits)
        self.bits.put(extra(difference, bits), bits) if bits else None

    def even(self, bit):
        self.bits.put(bit, 1)

    def others(self, values, first, last):
        """Coefficients first to last in zigzag order."""
        run = 0
        for at in range(first, last + 1):
            value = int(values[at])
            if value == 0:
                run += 1
                continue
            while run > 15:
                self.bits.symbol(self.tables[1], 0xF0)
                run -= 16
            bits = size_of(value)
            self.bits.symbol(self.tables[1], run << 4 | bits)
            self.bits.put(extra(value, bits), bits)
            run = 0
        if run:
            self.bits.symbol(self.tables[1], 0)

    def refine(self, values, first, last, low):
        """G.1.2.3: the bit at `low` of each coefficient; new ones become plus or minus one there."""
        ends = max([at for at in range(first, last + 1) if abs(int(values[at])) >> low == 1], default=first - 1)
        run, waiting = 0, []
        for at in range(first, last + 1):
            size = abs(int(values[at])) >> low
            if size == 0:
                run += 1
                continue
            while run > 15 and at <= ends:
                self.bits.symbol(self.tables[1], 0xF0)
                [self.bits.put(bit, 1) for bit in waiting]
                run, waiting = run - 16, []
            if size > 1:
                waiting.append(size & 1)
                continue
            self.bits.symbol(self.tables[1], run << 4 | 1)
            self.bits.put(int(values[at] > 0), 1)
            [self.bits.put(bit, 1) for bit in waiting]
            run, waiting = 0, []
        if run or waiting:
            self.bits.symbol(self.tables[1], 0)
            [self.bits.put(bit, 1) for bit in waiting]

    def finish(self):
        return self.bits.flush()


# Table D.3: width of the less likely part, next state after it, next state after the likely one, whether the sense turns.
QE = [(int(q, 16), int(l), int(m), s == "1") for q, l, m, s in (row.split(",") for row in """
5a1d,1,1,1 2586,14,2,0 1114,16,3,0 080b,18,4,0 03d8,20,5,0 01da,23,6,0 00e5,25,7,0 006f,28,8,0 0036,30,9,0 001a,33,10,0
000d,35,11,0 0006,9,12,0 0003,10,13,0 0001,12,13,0 5a7f,15,15,1 3f25,36,16,0 2cf2,38,17,0 207c,39,18,0 17b9,40,19,0
1182,42,20,0 0cef,43,21,0 09a1,45,22,0 072f,46,23,0 055c,48,24,0 0406,49,25,0 0303,51,26,0 0240,52,27,0 01b1,54,28,0
0144,56,29,0 00f5,57,30,0 00b7,59,31,0 008a,60,32,0 0068,62,33,0 004e,63,34,0 003b,32,35,0 002c,33,9,0 5ae1,37,37,1
484c,64,38,0 3a0d,65,39,0 2ef1,67,40,0 261f,68,41,0 1f33,69,42,0 19a8,70,43,0 1518,72,44,0 1177,73,45,0 0e74,74,46,0
0bfb,75,47,0 09f8,77,48,0 0861,78,49,0 0706,79,50,0 05cd,48,51,0 04de,50,52,0 040f,50,53,0 0363,51,54,0 02d4,52,55,0
025c,53,56,0 01f8,54,57,0 01a4,55,58,0 0160,56,59,0 0125,57,60,0 00f6,58,61,0 00cb,59,62,0 00ab,61,63,0 008f,61,32,0
5b12,65,65,1 4d04,80,66,0 412c,81,67,0 37d8,82,68,0 2fe8,83,69,0 293c,84,70,0 2379,86,71,0 1edf,87,72,0 1aa9,87,73,0
174e,72,74,0 1424,72,75,0 119c,74,76,0 0f6b,74,77,0 0d51,75,78,0 0bb6,77,79,0 0a40,77,48,0 5832,80,81,1 4d1c,88,82,0
438e,89,83,0 3bdd,90,84,0 34ee,91,85,0 2eae,92,86,0 299a,93,87,0 2516,86,71,0 5570,88,89,1 4ca9,95,90,0 44d9,96,91,0
3e22,97,92,0 3824,99,93,0 32b4,99,94,0 2e17,93,86,0 56a8,95,96,1 4f46,101,97,0 47e5,102,98,0 41cf,103,99,0
3c3d,104,100,0 375e,99,93,0 5231,105,102,0 4c0f,106,103,0 4639,107,104,0 415e,103,99,0 5627,105,106,1 50e7,108,107,0
4b85,109,103,0 5597,110,109,0 504f,111,107,0 5a10,110,111,1 5522,112,109,0 59eb,112,111,1 5a1d,113,113,0""".split())]


class ArithmeticCoder:
    """Annex D and F.1.4; all components name the same table and share its bins. L, U and Kx may be set."""

    def __init__(self, conditioning=(0, 1, 5)):
        self.lower, self.upper, self.kx = conditioning
        self.out = bytearray()
        self.restart(first=True)

    def restart(self, first=False):
        if not first:
            self.flush()
        self.bins = {}
        self.before, self.context = [0] * 4, [0] * 4
        self.c, self.a, self.ct, self.st, self.b = 0, 0x10000, 11, 0, -1

    def bit(self, key, bit):
        state, mps = self.bins.get(key, (113 if key == "even" else 0, 0))
        qe, lps_next, mps_next, turns = QE[state]
        self.a -= qe
        if bit == mps:
            if self.a >= 0x8000:
                return
            if self.a < qe:
                self.c, self.a = self.c + self.a, qe
            state = mps_next
        else:
            if self.a >= qe:
                self.c, self.a = self.c + self.a, qe
            mps, state = mps ^ turns, lps_next
        if key != "even":
            self.bins[key] = (state, mps)
        while self.a < 0x8000:
            self.a, self.c, self.ct = self.a << 1, self.c << 1, self.ct - 1
            if self.ct == 0:
                self.byte_out()
                self.ct = 8

    def emit(self, byte):
        self.out += bytes([255, 0]) if byte == 255 else bytes([byte])

    def byte_out(self):
        """D.1.6: bytes of ones wait until it is known whether a carry runs through them."""
        t = self.c >> 19
        if t > 255:
            if self.b >= 0:
                self.emit(self.b + 1)
            self.out += bytes(self.st)
            self.st, self.b = 0, t & 255
        elif t == 255:
            self.st += 1
        else:
            if self.b >= 0:
                self.emit(self.b)
            for _ in range(self.st):
                self.emit(255)
            self.st, self.b = 0, t
        self.c &= 0x7FFFF

    def flush(self):
        t = (self.c + self.a - 1) & ~0xFFFF
        self.c = t + 0x8000 if t < self.c else t
        self.c <<= self.ct
        self.byte_out()
        self.c <<= 8
        self.byte_out()
        if self.b >= 0:
            self.emit(self.b)
        for _ in range(self.st):
            self.emit(255)
        self.st, self.b = 0, -1

    def mean(self, c, value):
        difference = int(value) - self.before[c]
        self.before[c] = int(value)
        base = ("mean",)
        s = self.context[c]
        self.bit((*base, s), int(difference != 0))
        if difference == 0:
            self.context[c] = 0
            return
        negative = int(difference < 0)
        self.bit((*base, s + 1), negative)
        rest = abs(difference) - 1
        first = (*base, s + 2 + negative)
        self.bit(first, int(rest > 0))
        top = 0
        if rest > 0:
            top, x = 1, 20
            while rest >> 1 >= top:
                self.bit((*base, x), 1)
                top, x = top << 1, x + 1
            self.bit((*base, x), 0)
            low = top >> 1
            while low:
                self.bit((*base, x + 14), int(bool(rest & low)))
                low >>= 1
        if top < (1 << self.lower) >> 1:
            self.context[c] = 0
        else:
            self.context[c] = (12 if top > (1 << self.upper) >> 1 else 4) + 4 * negative

    def even(self, bit):
        self.bit("even", bit)

    def others(self, values, first, last):
        base = ("others",)
        end = max([at for at in range(first, last + 1) if values[at]], default=first - 1)
        at = first
        while at <= end:
            self.bit((*base, 3 * (at - 1)), 0)
            while not values[at]:
                self.bit((*base, 3 * (at - 1) + 1), 0)
                at += 1
            self.bit((*base, 3 * (at - 1) + 1), 1)
            value = int(values[at])
            self.even(int(value < 0))
            rest = abs(value) - 1
            s = 3 * (at - 1) + 2
            self.bit((*base, s), int(rest > 0))
            if rest > 0:
                self.bit((*base, s), int(rest > 1))
                if rest > 1:
                    top, x = 2, 189 if at <= self.kx else 217
                    while rest >> 1 >= top:
                        self.bit((*base, x), 1)
                        top, x = top << 1, x + 1
                    self.bit((*base, x), 0)
                    low = top >> 1
                    while low:
                        self.bit((*base, x + 14), int(bool(rest & low)))
                        low >>= 1
            at += 1
        if at <= last:
            self.bit((*base, 3 * (at - 1)), 1)

    def refine(self, values, first, last, low):
        base = ("others",)
        sizes = [abs(int(value)) >> low for value in values]
        end = max([at for at in range(first, last + 1) if sizes[at]], default=first - 1)
        known = max([at for at in range(first, last + 1) if sizes[at] > 1], default=0)
        at = first
        while at <= end:
            if at > known:
                self.bit((*base, 3 * (at - 1)), 0)
            while not sizes[at]:
                self.bit((*base, 3 * (at - 1) + 1), 0)
                at += 1
            if sizes[at] > 1:
                self.bit((*base, 3 * (at - 1) + 2), sizes[at] & 1)
            else:
                self.bit((*base, 3 * (at - 1) + 1), 1)
                self.even(int(values[at] < 0))
            at += 1
        if at <= last and at > known:
            self.bit((*base, 3 * (at - 1)), 1)

    def finish(self):
        self.flush()
        return bytes(self.out)


def write(planes, size, factors, scans, *, progressive=False, arithmetic=False, ids=(1, 2, 3, 4), before=b"", quantiser=6,
          wide_tables=False, restart=0, tables="flat", between=b"", conditioning=None, height=None, fill=b""):
    """One file. `planes`: samples at the size of the component (`size` times its factor over the largest one), any
    number; `scans`: of `scan`; `before`: segments after the start marker; `between`: segments before every scan but the
    first; `tables`: "flat", "standard", or "left out"; `fill`: bytes put before each marker of a segment."""
    w, h = size
    most = max(f[0] for f in factors), max(f[1] for f in factors)
    units = -(-w // (8 * most[0])), -(-h // (8 * most[1]))
    steps = np.minimum(1 + quantiser * (2 + np.add.outer(np.arange(8), np.arange(8)) / 2), 255).astype(int).reshape(64)
    coefficients = []
    for plane, (fx, fy) in zip(planes, factors):
        full = np.pad(plane.astype(float), ((0, units[1] * fy * 8 - plane.shape[0]), (0, units[0] * fx * 8 - plane.shape[1])), "edge")
        coefficients.append(np.rint(transform(full) / steps).astype(int)[..., ZIGZAG])
    if tables == "flat":
        means, others = FLAT_MEANS, FLAT
    else:
        means, others = standard_tables()
    out = [b"\xff\xd8", before]
    q = steps[ZIGZAG]
    out.append(segment(0xDB, bytes([16 if wide_tables else 0]) + (q.astype(">u2").tobytes() if wide_tables else q.astype(np.uint8).tobytes())))
    kind = {(False, False): 0xC1, (True, False): 0xC2, (False, True): 0xC9, (True, True): 0xCA}[progressive, arithmetic]
    body = struct.pack(">BHHB", 8, h if height is None else height, w, len(planes))
    for name, (fx, fy) in zip(ids, factors):
        body += bytes([name, fx << 4 | fy, 0])
    out.append(segment(kind, body))
    if arithmetic and conditioning:
        lower, upper, kx = conditioning
        out.append(segment(0xCC, bytes([0, upper << 4 | lower, 0x10, kx])))
    if not arithmetic and tables != "left out":
        for place, (counts, symbols) in ((0, means), (0x10, others)):
            out.append(segment(0xC4, bytes([place, *counts, *symbols])))
    if restart:
        out.append(segment(0xDD, struct.pack(">H", restart)))
    for index, (parts, first, last, high, low) in enumerate(scans):
        if index:
            out.append(between)
        body = bytes([len(parts)]) + b"".join(bytes([ids[c], 0]) for c in parts)
        out.append(segment(0xDA, body + bytes([first, last, high << 4 | low])))
        if arithmetic:
            coder = ArithmeticCoder(conditioning or (0, 1, 5))
        else:
            coder = HuffmanCoder((codes(*means), codes(*others)))
        if len(parts) > 1:
            todo = [[(c, y * factors[c][1] + v, x * factors[c][0] + u) for c in parts for v in range(factors[c][1]) for u in range(factors[c][0])]
                    for y in range(units[1]) for x in range(units[0])]
        else:
            c = parts[0]
            fx, fy = factors[c] if len(factors) > 1 else (1, 1)
            mx, my = most if len(factors) > 1 else (1, 1)
            across, down = -(-(-(-w * fx // mx)) // 8), -(-(-(-h * fy // my)) // 8)
            todo = [[(c, y, x)] for y in range(down) for x in range(across)]
        coded, number = bytearray(), 0
        for at, unit in enumerate(todo):
            if restart and at and at % restart == 0:
                if arithmetic:
                    coder.restart()
                    coder.out += bytes([0xFF, 0xD0 + number])
                else:
                    coded += coder.finish() + bytes([0xFF, 0xD0 + number])
                    coder = HuffmanCoder(coder.tables)
                number = (number + 1) % 8
            for c, y, x in unit:
                values = coefficients[c][y, x]
                # All components share one table, and with arithmetic coding its bins.
                if first == 0:
                    if high == 0:
                        coder.mean(c, int(values[0]) >> low)
                    else:
                        coder.even((int(values[0]) >> low) & 1)
                if last > 0:
                    begin = max(first, 1)
                    if high == 0:
                        shifted = np.sign(values) * (np.abs(values) >> low)
                        coder.others(shifted, begin, last)
                    else:
                        coder.refine(values, begin, last, low)
        out.append(bytes(coded) + coder.finish())
    out.append(b"\xff\xd9")
    # Coded data begin with 0xff only where a zero follows.
    return out[0] + b"".join(fill + part if part[:1] == b"\xff" and part[1:2] != b"\0" else part for part in out[1:])


def standard_tables():
    """The tables of K.3.3 for luma, as a file has them that Pillow writes without optimising."""
    import io

    from PIL import Image
    data = io.BytesIO()
    Image.new("L", (8, 8)).save(data, "JPEG")
    data, at, found = data.getvalue(), 2, {}
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2:at + 4], "big")
        if data[at + 1] == 0xC4:
            body = data[at + 4:at + 2 + length]
            while body:
                count = sum(body[1:17])
                found[body[0]] = (list(body[1:17]), list(body[17:17 + count]))
                body = body[17 + count:]
        at += 2 + length
    return found[0], found[0x10]
