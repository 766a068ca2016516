"""Drawings of the concepts as 192 px RGBA. `render.py` writes the seven training styles, `render.py openmoji` the held-out style."""
import io, json, sys
import numpy as np, resvg_py
from PIL import Image
from common import *

SIDE = 192
held_out = sys.argv[1:] == ["openmoji"]
styles = ["openmoji"] if held_out else STYLES
jobs = []
for style in styles:
    icons = Icons(style)
    found = {i: icons.icon(c) for i, c in enumerate(CONCEPTS)}
    # An alias may give a seen concept the very drawing of an unseen one.
    unseen_bodies = {found[i][0] for i in UNSEEN if found[i]}
    for i, icon in found.items():
        if icon and (held_out or i not in UNSEEN and icon[0] not in unseen_bodies):
            jobs.append((style, i, icons.svg(icon)))
out = CACHE / ("drawings-openmoji" if held_out else "drawings")
pixels = np.lib.format.open_memmap(f"{out}.npy", "w+", np.uint8, (len(jobs), SIDE, SIDE, 4))
rows = []
for n, (style, i, svg) in enumerate(jobs):
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE)
        im = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    except Exception as e:  # an icon the renderer cannot read is left empty and dropped below
        print("failed", style, CONCEPTS[i]["slug"], e)
        continue
    if im.size != (SIDE, SIDE):
        im.thumbnail((SIDE, SIDE), Image.BICUBIC)
        page = Image.new("RGBA", (SIDE, SIDE), (255, 255, 255, 0))
        page.paste(im, ((SIDE - im.width) // 2, (SIDE - im.height) // 2))
        im = page
    a = np.asarray(im)
    if a[..., 3].max() < 16:
        print("empty", style, CONCEPTS[i]["slug"])
        continue
    pixels[len(rows)] = a
    rows.append([style, i])
pixels.flush()
(out.parent / f"{out.name}.json").write_text(json.dumps(rows))  # rows beyond len(rows) of the array are unused
print(len(rows), "drawings", {s: sum(r[0] == s for r in rows) for s in styles})
