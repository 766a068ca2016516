"""Forms of GIF and BMP that are rare, and what Pillow makes of them.

  python forms.py OUT

writes OUT/forms.safetensors: the bytes of files under `file/NAME`, and under `want/NAME` the expected image as the bytes of a
plain PNG: Pillow 13, transparency over white, converted to RGB.
"""
import io
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

W, H = 13, 7


def flatten(im):
    if "A" in im.getbands() or im.info.get("transparency") is not None:
        im = im.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", im.size, (255, 255, 255, 255)), im).convert("RGB")
    return im.convert("RGB")


def bmp(size, rows, bits, compression=0, masks=(0, 0, 0, 0), height=H, offset=None):
    head = struct.pack("<IiiHHIIiiII", size, W, height, 1, bits, compression, 0, 2835, 2835, 0, 0)
    head += struct.pack("<IIII", *masks)[:size - 40] if size > 40 else struct.pack("<III", *masks[:3]) if compression == 3 else b""
    head += bytes(max(0, size - len(head)))
    at = 14 + len(head) if offset is None else offset
    return b"BM" + struct.pack("<IHHI", at + len(rows), 0, 0, at) + head + rows


def main(root):
    rng = np.random.default_rng(11)
    files = {}
    # Every one of the 65,536 words would be 128 KiB; these are all values of each field.
    words = rng.integers(0, 65536, (H, W)).astype("<u2")
    words[0, :8] = np.arange(0, 256, 32)
    rows = b"".join(row.tobytes() + bytes(-2 * W % 4) for row in words)
    files["bmp-16"] = bmp(40, rows, 16)
    files["bmp-16-top-down"] = bmp(40, rows, 16, height=-H)
    for size in (40, 52, 56, 108, 124):
        files[f"bmp-565-{size}"] = bmp(size, rows, 16, 3, (0xF800, 0x7E0, 0x1F, 0))
        files[f"bmp-555-{size}"] = bmp(size, rows, 16, 3, (0x7C00, 0x3E0, 0x1F, 0))
        if size > 52:
            files[f"bmp-1555-{size}"] = bmp(size, rows, 16, 3, (0x7C00, 0x3E0, 0x1F, 0x8000))
    files["bmp-565-no-offset"] = bmp(40, rows, 16, 3, (0xF800, 0x7E0, 0x1F, 0), offset=0)
    # A frame that lies beyond the screen, in part or as a whole.
    image = Image.fromarray(rng.integers(0, 256, (H, W, 3)).astype(np.uint8)).quantize(16)
    for word, more in (("opaque", {}), ("transparent", {"transparency": 3})):
        for interlace in (0, 1):
            data = io.BytesIO()
            image.save(data, "GIF", interlace=interlace, **more)
            data = data.getvalue()
            at = data.index(b"\x2c\0\0\0\0" + struct.pack("<HH", W, H))
            for screen, place in (((13, 7), (0, 0)), ((20, 11), (2, 3)), ((20, 11), (9, 1)), ((8, 5), (0, 0)), ((8, 5), (10, 9)), ((30, 5), (3, 0)), ((0, 0), (0, 0)), ((0, 0), (4, 2))):
                new = bytearray(data)
                new[6:10] = struct.pack("<HH", *screen)
                new[at + 1:at + 5] = struct.pack("<HH", *place)
                name = "-".join(map(str, (*screen, *place)))
                files[f"gif-{word}-{interlace}-{name}"] = bytes(new)
    tensors = {}
    for name, data in files.items():
        tensors[f"file/{name}"] = np.frombuffer(data, np.uint8)
        out = io.BytesIO()
        flatten(Image.open(io.BytesIO(data))).save(out, "PNG", optimize=True)
        tensors[f"want/{name}"] = np.frombuffer(out.getvalue(), np.uint8)
    save_file(tensors, root / "forms.safetensors")
    print(len(files), "files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
