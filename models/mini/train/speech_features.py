"""Training words and phrases through espeak-ng's C library and the Whisper encoder: x f16 [n, 20 or 30, 384], a file a pass."""
import ctypes, json, os, sys, time
import numpy as np, torch
import mini
from common import *
from parts import parts

torch.set_num_threads(1)
ACCENTS = ["en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029"]
VARIANTS = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Andy", "Annie", "Alicia", "Alex", "Denis", "Gene", "Lee", "linda", "Mario",
            "Michael", "adam", "Tweaky", "Jacky", "Diogo", "steph", "klatt"]
RATE, PITCH, SYNCHRONOUS, UTF8 = 1, 3, 2, 1
CLIP = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    def __init__(self):
        self.lib = ctypes.CDLL("libespeak-ng.so.1")
        self.hz = self.lib.espeak_Initialize(SYNCHRONOUS, 0, None, 0)
        assert self.hz > 0
        self.parts = []

        def take(wav, n, _):
            if wav and n:
                self.parts.append(np.ctypeslib.as_array(wav, (n,)).copy())
            return 0
        self.callback = CLIP(take)  # kept: the library holds only the pointer
        self.lib.espeak_SetSynthCallback(self.callback)

    def voice(self, name):
        return self.lib.espeak_SetVoiceByName(name.encode()) == 0

    def say(self, text, speed, pitch):
        self.lib.espeak_SetParameter(RATE, speed, 0)
        self.lib.espeak_SetParameter(PITCH, pitch, 0)
        self.parts.clear()
        t = text.encode()
        self.lib.espeak_Synth(t, len(t) + 1, 0, 1, 0, UTF8, None, None)
        self.lib.espeak_Synchronize()
        a = np.concatenate(self.parts) if self.parts else np.zeros(0, np.int16)
        loud = np.flatnonzero(np.abs(a) > 200)
        return a[loud[0]:loud[-1] + 1].astype(np.float32) / 32768 if len(loud) else None


def finished(a, hz, rng):
    """16 kHz, spectral tilt, gain, noise, a little silence before; zeros up to 2 or 3 s. None where it is longer."""
    lead = int(rng.uniform(0, 0.15) * hz)
    seconds = 2 if lead + len(a) <= 2 * hz else 3
    if lead + len(a) > seconds * hz:
        return None
    x = np.zeros(seconds * hz, np.float32)
    x[lead:lead + len(a)] = a
    n = seconds * 16000
    f = np.fft.rfft(x)[:n // 2 + 1] * (16000 / hz)
    octaves = np.log2(np.maximum(np.arange(len(f)) / seconds, 60) / 1000)
    f *= 10 ** (rng.uniform(-4, 4) * octaves / 20)
    y = np.fft.irfft(f, n)
    y *= 10 ** (rng.uniform(-20, -1) / 20) / max(np.abs(y).max(), 1e-6)
    loud = y[int(lead * 16000 / hz):int((lead + len(a)) * 16000 / hz)]
    noise = rng.standard_normal(n)
    if rng.random() < 0.5:  # pink instead of white
        g = np.fft.rfft(noise) / np.sqrt(np.maximum(np.arange(n // 2 + 1), 20))
        noise = np.fft.irfft(g, n)
    noise *= np.sqrt(np.mean(loud ** 2) / np.mean(noise ** 2)) * 10 ** (-rng.uniform(15, 50) / 20)
    # Real recordings and other synthesisers are followed by true zeros when padded: half of the clips end that way.
    if rng.random() < 0.5:
        noise[int((lead + len(a)) * 16000 / hz + rng.uniform(0, 0.2) * 16000):] = 0
    return (y + noise).astype(np.float32)


def write(name, texts, seed, w, espeak):
    path = CACHE / f"speech-{name}.npz"
    if path.exists():
        return
    rng, start = np.random.default_rng(seed), time.time()
    jobs = [(f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}", t, int(rng.integers(120, 201)), int(rng.integers(30, 76))) for t in texts]
    order = sorted(range(len(jobs)), key=lambda j: jobs[j][0])  # a voice at a time: loading one is slow
    done = {2: ([], []), 3: ([], [])}
    waiting, voice, left_out = {2: [], 3: []}, None, []

    def flush(seconds):
        q = waiting[seconds]
        if q:
            with torch.no_grad():
                mel = mini.log_mel(torch.tensor(np.stack([y for _, y in q]))).bfloat16()
                x = mini.speech_tower(w, mel).float().unflatten(1, (-1, 5)).mean(2)
            done[seconds][0].append(x.half().numpy())
            done[seconds][1].extend(j for j, _ in q)
            q.clear()

    for k, j in enumerate(order):
        v, text, speed, pitch = jobs[j]
        if v != voice:
            assert espeak.voice(v), v
            voice = v
        a = espeak.say(text, speed, pitch)
        y = None if a is None else finished(a, espeak.hz, rng)
        if y is None and a is not None:  # too long: once more, faster
            y = finished(espeak.say(text, 220, pitch), espeak.hz, rng)
        if y is None:
            left_out.append(text)
            continue
        seconds = len(y) // 16000
        waiting[seconds].append((j, y))
        if len(waiting[seconds]) == 16:
            flush(seconds)
        if k % 2000 == 0:
            print(name, k, f"{time.time() - start:.0f} s", flush=True)
    flush(2), flush(3)
    out = {}
    for s, (xs, js) in done.items():
        out[f"x{s}"] = np.concatenate(xs) if xs else np.zeros((0, 10 * s, 384), np.float16)
        out[f"t{s}"] = np.array([jobs[j][1] for j in js])
    part = CACHE / f"speech-{name}.part.npz"
    np.savez(part, **out)
    os.replace(part, path)
    print(name, {s: len(js) for s, (_, js) in done.items()}, "left out", len(left_out), left_out[:5], f"{time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    words, core, phrases = training_speech()
    print(len(words), "words", len(core), "core", len(phrases), "phrases", flush=True)
    w = {k: v.bfloat16() for k, v in parts().items() if k.startswith("speech.")}
    espeak = Espeak()
    if sys.argv[1:] == ["try"]:
        import soundfile
        rng = np.random.default_rng(0)
        bad = [f"{a}+{v}" for a in set(ACCENTS) for v in VARIANTS if not espeak.voice(f"{a}+{v}")]
        print("no such voice", bad)
        t = time.time(); espeak.voice("en-us+f2"); print("voice", time.time() - t)
        t = time.time(); ys = [finished(espeak.say(x, 150, 50), espeak.hz, rng) for x in words[:100]]; print("clip", (time.time() - t) / 100)
        soundfile.write(CACHE / "try.wav", np.concatenate(ys[:5]), 16000)
        m = torch.tensor(np.stack([y for y in ys if y is not None and len(y) == 32000][:64]))
        for n in (16, 64):
            for dt in (torch.bfloat16, torch.float32):
                ww = {k: v.to(dt) for k, v in w.items()}
                with torch.no_grad():
                    mini.speech_tower(ww, mini.log_mel(m[:n]).to(dt)); t = time.time(); mel = mini.log_mel(m[:n]).to(dt); t1 = time.time(); mini.speech_tower(ww, mel); print(n, dt, "mel", (t1 - t) / n, "tower", (time.time() - t1) / n)
        sys.exit()
    passes = {"words-1": (words, 11), "phrases": (phrases, 14), "core": (core, 13), "words-2": (words, 12)}
    for name in sys.argv[1:] or passes:  # named passes may run in processes of their own
        write(name, *passes[name], w, espeak)
