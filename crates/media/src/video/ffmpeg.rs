//! Images of codecs that nothing here decodes, by an FFmpeg program on the user's machine.
//!
//! Times come from our own demuxer; each wanted image is one call of the program. What does not live here: the choice
//! of who decodes a codec. No shell is started, and the program is given no input but one local file.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::packets::{Codec, Shown, ShownImages, VideoEstimate, VideoTrack};
use super::source::VideoSource;
use crate::error::MediaError;
use crate::image::rgb::{RgbImage, check_pixels};
use crate::image::size::{Height, Width};
use crate::label::Label;

/// Time for one image. A 4K HEVC image ten seconds behind its sync sample takes a few seconds on one core.
const IMAGE_LIMIT: Duration = Duration::from_secs(60);

/// Time for the program to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Bytes kept of what the program says on its error stream, from the end.
const COMPLAINT_BYTES: usize = 4096;

/// The name of a codec in messages.
pub(crate) fn codec_name(codec: &Codec) -> &str {
    match codec {
        Codec::H264 => "H.264",
        Codec::Av1 => "AV1",
        Codec::Hevc => "H.265 (HEVC)",
        Codec::Vp9 => "VP9",
        Codec::Vp8 => "VP8",
        Codec::Other(name) => name,
    }
}

/// Opens the images of a track; the program is started once to see that it is there.
///
/// # Numerics
/// FFmpeg's conversion to RGB, with exact rounding and chroma interpolated linearly. It applies rotation itself.
/// # Errors
/// [`MediaError::UnsupportedCodec`] names the codec where the program does not run or the video is not a file, and
/// [`MediaError::Empty`] without an image. Reading an image gives [`MediaError::Corrupt`] with the program's last words.
pub(crate) fn open(
    track: &VideoTrack,
    source: &VideoSource,
    program: &Path,
) -> Result<Box<dyn ShownImages>, MediaError> {
    Ok(Box::new(Program::open(track, source, program, IMAGE_LIMIT)?))
}

/// Hides images that HEVC leaves out at the beginning of a stream that was cut: those that are stored behind its first
/// sync sample, shown before it, and coded with what came before that.
///
/// # Source
/// ITU-T H.265, 7.4.2.2: types 8 and 9 are RASL images, which are not shown where they follow the first random access
/// point; 6 and 7 (RADL) are.
pub(crate) fn hide_skipped(track: &mut VideoTrack) -> Result<(), MediaError> {
    let Some(first) = track.packets.iter().position(|packet| packet.sync) else { return Ok(()) };
    // Of `hvcC`: the last two bits of byte 21 are the length of a unit's length less one.
    let length_bytes = track.config.get(21).map_or(4, |byte| usize::from(byte & 3) + 1);
    for at in first + 1..track.packets.len() {
        if track.packets[at].pts >= track.packets[first].pts {
            break;
        }
        let bytes = track.data.read(at)?;
        let mut rest = bytes.as_slice();
        while let Some(head) = rest.get(..length_bytes + 1) {
            let length = head[..length_bytes].iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
            if matches!(head[length_bytes] >> 1 & 63, 8 | 9) {
                track.packets[at].shown = false;
                track.again.retain(|again| again.packet != at);
                break;
            }
            rest = rest.get(length_bytes.saturating_add(length)..).unwrap_or_default();
        }
    }
    Ok(())
}

/// The images of one video.
#[derive(Debug)]
struct Program {
    program: PathBuf,
    path: PathBuf,
    label: Label,
    width: u32,
    height: u32,
    starts_s: Vec<f64>,
    end_s: f64,
    /// When the first one begins on the container's clock, which the program seeks by.
    zero_s: f64,
    /// The track as its option `-map` names it.
    stream: String,
    /// For each image the place of one that decoding can begin at and that is shown no later.
    begins: Vec<usize>,
    limit: Duration,
    /// Bytes of the tables that the video was opened with.
    opening: u64,
}

impl Program {
    fn open(track: &VideoTrack, source: &VideoSource, program: &Path, limit: Duration) -> Result<Self, MediaError> {
        let refused = |why: String| track.unsupported(format!("found {} images, {why}", codec_name(&track.codec)));
        let VideoSource::File(file) = source else {
            return Err(refused("which only an FFmpeg program decodes, and only from a file".to_owned()));
        };
        // Sides as shown; the program turns the images.
        let (width, height) = match track.quarter_turns % 2 {
            0 => (track.width, track.height),
            _ => (track.height, track.width),
        };
        check_pixels(&track.label.name, width, height)?;
        let Shown { starts_s, packets, end_s, zero_s } = track.shown()?;
        let begins = begins(track, &packets);
        let mut version = Command::new(program);
        version.arg("-version");
        match finish(version, 1 << 20, VERSION_LIMIT.min(limit)) {
            Ok(Finished { status: Some(status), .. }) if status.success() => {}
            Ok(_) => return Err(refused(format!("and the FFmpeg program {} does not work", program.display()))),
            Err(error) => {
                let why = format!("and no FFmpeg program was found to decode them ({}: {error})", program.display());
                return Err(refused(why));
            }
        }
        Ok(Self {
            program: program.to_owned(),
            path: file.path().to_owned(),
            label: track.label.clone(),
            width,
            height,
            starts_s,
            end_s,
            zero_s,
            stream: track.stream.clone(),
            begins,
            limit,
            opening: track.opening + 2 * track.table_bytes(),
        })
    }

    /// The command that writes the image of a place to its standard output.
    fn command(&self, place: usize) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-nostdin", "-hide_banner", "-v", "error"]);
        // Only this file and only as a video: no playlist, no address, no device.
        command.args(["-protocol_whitelist", "file,pipe", "-format_whitelist", "mov,matroska"]);
        // On the container's own clock, not from its first packet, which may be one of audio.
        let from = self.time_before(self.begins[place]);
        let seek = match self.begins[place] {
            0 => self.zero_s.min(self.zero_s / 2.0),
            _ => self.zero_s + from,
        };
        command.args(["-seek_timestamp", "1", "-ss", &format!("{seek:.6}")]);
        // The prefix keeps names that begin with '-' or look like an address what they are.
        let mut input = OsString::from("file:");
        input.push(&self.path);
        command.arg("-i").arg(input);
        if self.begins[place] < place {
            // The rest of the way is decoded. A seek to the image itself can land behind images that it needs: on a
            // sync sample that is stored before it and shown after it, as open groups of images have them.
            command.args(["-ss", &format!("{:.6}", self.zero_s + self.time_before(place) - seek)]);
        }
        // An image of other sides than the container says is scaled.
        command.args(["-map", &self.stream, "-frames:v", "1", "-vf"]);
        let (width, height) = (self.width, self.height);
        command
            .arg(format!("scale={width}:{height}:flags=bilinear+accurate_rnd+full_chroma_int+bitexact,format=rgb24"));
        command.args(["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]);
        command
    }

    /// Half-way between the image before and this one, so that rounding of times cannot miss it.
    fn time_before(&self, place: usize) -> f64 {
        let start = self.starts_s[place];
        match place.checked_sub(1) {
            Some(before) => (self.starts_s[before] + start) / 2.0,
            None => start,
        }
    }
}

/// For each shown image the place of the last sync sample that is stored no later and shown no later, else the first.
fn begins(track: &VideoTrack, shown: &[usize]) -> Vec<usize> {
    let syncs: Vec<(usize, usize)> = {
        let mut found: Vec<_> =
            shown.iter().enumerate().filter(|(_, packet)| track.packets[**packet].sync).map(|(i, p)| (*p, i)).collect();
        found.sort_unstable();
        found
    };
    let begin = |(place, packet): (usize, &usize)| {
        let stored = syncs.partition_point(|(sync, _)| sync <= packet);
        // One or two steps in a video that is in order: a sync sample overtakes the images of one group.
        syncs[..stored].iter().rev().take(64).map(|(_, begin)| *begin).find(|begin| *begin <= place).unwrap_or(0)
    };
    shown.iter().enumerate().map(begin).collect()
}

impl ShownImages for Program {
    fn estimate(&self) -> Result<VideoEstimate, MediaError> {
        // The program's own memory is not this process's. What it writes is read into its place.
        let image = 3 * u64::from(self.width) * u64::from(self.height);
        let held = 24 * self.starts_s.len() as u64;
        let (width, height, opening) = (self.width, self.height, self.opening);
        Ok(VideoEstimate { width, height, opening, held, decoding: held + image + (1 << 20) })
    }

    fn starts_s(&self) -> &[f64] {
        &self.starts_s
    }

    fn end_s(&self) -> f64 {
        self.end_s
    }

    fn image(&mut self, place: usize) -> Result<RgbImage, MediaError> {
        let failed = |what: String| self.label.corrupt(format!("the image at {:.3} s: {what}", self.starts_s[place]));
        let expected = self.width as usize * self.height as usize * 3;
        let finished = finish(self.command(place), expected, self.limit)
            .map_err(|error| failed(format!("FFmpeg cannot be started: {error}")))?;
        let complaint = match finished.complaint.as_str() {
            "" => "it does not say why",
            words => words,
        };
        match finished.status {
            None => Err(failed(format!("FFmpeg gave none within {:?}", self.limit))),
            // Before the status: a program whose reader has seen enough may fail for that alone.
            Some(_) if finished.output.len() > expected => {
                Err(failed(format!("FFmpeg gave more than {expected} bytes, expected exactly that")))
            }
            Some(status) if !status.success() => Err(failed(format!("FFmpeg failed ({status}): {complaint}"))),
            Some(_) if finished.output.len() < expected => {
                Err(failed(format!("FFmpeg gave {} bytes, expected {expected}: {complaint}", finished.output.len())))
            }
            Some(_) => Ok(RgbImage::from_parts(Width(self.width), Height(self.height), finished.output)),
        }
    }
}

/// What a program left.
struct Finished {
    /// `None` where it was ended because its time was over.
    status: Option<ExitStatus>,
    /// What it wrote, one byte more than was expected at most.
    output: Vec<u8>,
    /// The last line of its error stream.
    complaint: String,
}

/// Runs a program to its end, to the limit of its time, or to one byte more than expected. It is never left behind.
fn finish(mut command: Command, expected: usize, limit: Duration) -> io::Result<Finished> {
    // Without a report file, whatever the user's settings.
    command.env_remove("FFREPORT");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let deadline = Instant::now() + limit;
    let mut child = Reaped(command.spawn()?);
    // Readers report through channels and are not joined: a program's own child could hold a pipe open.
    let output = reader(child.0.stdout.take(), move |mut pipe| {
        // Room for all of it: grown step by step, an image would be in memory up to three times.
        let mut bytes = Vec::with_capacity(expected + 1);
        let _ = pipe.by_ref().take(expected as u64 + 1).read_to_end(&mut bytes);
        bytes
    });
    let complaint = reader(child.0.stderr.take(), |mut pipe| {
        let (mut tail, mut part) = (Vec::new(), [0; COMPLAINT_BYTES]);
        while let Ok(bytes @ 1..) = pipe.read(&mut part) {
            tail.extend_from_slice(&part[..bytes]);
            tail.drain(..tail.len().saturating_sub(COMPLAINT_BYTES));
        }
        tail
    });
    let left = || deadline.saturating_duration_since(Instant::now());
    let late = || Finished { status: None, output: Vec::new(), complaint: String::new() };
    let Ok(output) = output.recv_timeout(left()) else {
        return Ok(late());
    };
    // The reader's end is closed now: a program that goes on writing fails, and one that has written all of it ends.
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if left().is_zero() {
            return Ok(late());
        }
        thread::sleep(Duration::from_millis(2).min(left()));
    };
    let complaint = complaint.recv_timeout(left().min(Duration::from_secs(1))).unwrap_or_default();
    let complaint = String::from_utf8_lossy(&complaint);
    let complaint = complaint.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned();
    Ok(Finished { status: Some(status), output, complaint })
}

/// Reads a pipe on a thread of its own.
fn reader<P: Send + 'static>(pipe: Option<P>, read: impl FnOnce(P) -> Vec<u8> + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    if let Some(pipe) = pipe {
        thread::spawn(move || sender.send(read(pipe)));
    }
    receiver
}

/// A child that is ended and waited for, whatever happens to its owner.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only where it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::packets::{Packet, PacketData};

    struct NoData;

    impl PacketData for NoData {
        fn longest(&self) -> u64 {
            0
        }

        fn read(&mut self, _index: usize) -> Result<Vec<u8>, MediaError> {
            unreachable!("FFmpeg reads the file itself")
        }
    }

    fn track(codec: Codec, [width, height]: [u32; 2], starts: &[f64]) -> VideoTrack {
        let packet = |(place, start_s): (usize, &f64)| Packet {
            pts: place as i64,
            start: (start_s * 1e6).round() as i64,
            duration: 40_000,
            sync: place % 8 == 0,
            shown: *start_s >= 0.0,
        };
        VideoTrack {
            label: Label { name: "a video".to_owned(), format: "mp4" },
            codec,
            stream: "0:V:0".to_owned(),
            config: Vec::new(),
            width,
            height,
            quarter_turns: 0,
            mirrored: false,
            colour: None,
            ticks: 1_000_000,
            packets: starts.iter().enumerate().map(packet).collect(),
            again: Vec::new(),
            data: Box::new(NoData),
            opening: 0,
        }
    }

    fn file() -> VideoSource {
        VideoSource::file("-film: with an odd name.mp4")
    }

    #[test]
    fn a_video_in_memory_is_refused_by_the_name_of_its_codec() {
        let source = VideoSource::Bytes(std::sync::Arc::from(&b"x"[..]), "a video".to_owned());
        let error = Program::open(&track(Codec::Vp9, [4, 2], &[0.0]), &source, Path::new("ffmpeg"), IMAGE_LIMIT);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), "unsupported_codec");
        assert!(error.to_string().contains("VP9") && error.to_string().contains("only from a file"), "{error}");
    }

    #[test]
    fn a_missing_program_refuses_the_video_by_the_name_of_its_codec() {
        for (codec, name) in [(Codec::Hevc, "HEVC"), (Codec::Av1, "AV1"), (Codec::Other("Theora".to_owned()), "Theora")]
        {
            let program = Path::new("/no/such/program");
            let error = open(&track(codec, [4, 2], &[0.0]), &file(), program).err().expect("it is missing");
            assert_eq!(error.kind(), "unsupported_codec");
            let words = error.to_string();
            assert!(words.contains(name) && words.contains("no FFmpeg program was found"), "{words}");
        }
    }

    #[test]
    fn sides_and_packets_are_looked_at_before_the_program() {
        let program = Path::new("/no/such/program");
        let large = open(&track(Codec::Hevc, [60_000, 60_000], &[0.0]), &file(), program).err().expect("too large");
        assert_eq!(large.kind(), "too_large");
        let empty = open(&track(Codec::Hevc, [4, 2], &[-1.0]), &file(), program).err().expect("nothing is shown");
        assert_eq!(empty.kind(), "empty");
    }

    #[test]
    fn decoding_begins_at_a_sync_sample_that_is_shown_no_later() {
        let mut track = track(Codec::Hevc, [4, 2], &[0.0, 0.04, 0.12, 0.08, 0.16]);
        track.packets[2].sync = true;
        let shown = track.shown().unwrap();
        assert_eq!(shown.packets, [0, 1, 3, 2, 4]);
        assert_eq!(begins(&track, &shown.packets), [0, 0, 0, 3, 3]);
        track.packets[0].sync = false;
        assert_eq!(begins(&track, &shown.packets), [0, 0, 0, 3, 3], "the first image where no other is");
    }

    /// Programs that behave badly, as scripts. One test holds the lock at a time: a script that another thread's child
    /// still holds open for writing cannot be started.
    #[cfg(unix)]
    mod scripts {
        use std::os::unix::fs::PermissionsExt;
        use std::sync::{Mutex, MutexGuard, PoisonError};

        use super::*;

        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

        struct Script {
            folder: tempfile::TempDir,
            _turn: MutexGuard<'static, ()>,
        }

        impl Script {
            fn new(body: &str) -> Self {
                let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("program");
                let version = "[ \"$1\" = -version ] && exit 0\n";
                std::fs::write(&path, format!("#!/bin/sh\n{version}{body}\n")).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
                Self { folder, _turn: turn }
            }

            fn opened(&self, limit: Duration) -> Program {
                let track = track(Codec::Hevc, [2, 1], &[0.0, 0.04, 0.12]);
                Program::open(&track, &file(), &self.folder.path().join("program"), limit).unwrap()
            }

            fn error(&self, limit: Duration) -> String {
                let error = self.opened(limit).image(1).unwrap_err();
                assert_eq!(error.kind(), "corrupt");
                let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                assert!(error.to_string().contains("a video") && source.contains("0.040 s"), "{error}");
                source
            }
        }

        const LIMIT: Duration = Duration::from_secs(20);

        #[test]
        fn the_bytes_of_the_program_are_the_image() {
            let script = Script::new("printf abcdef");
            let image = script.opened(LIMIT).image(1).unwrap();
            assert_eq!(image.pixels(), b"abcdef");
        }

        #[test]
        fn a_failing_program_is_quoted() {
            let words = Script::new("echo first >&2; echo 'no such frame' >&2; exit 3").error(LIMIT);
            assert!(words.contains("no such frame") && !words.contains("first"), "{words}");
            // Also where all bytes came.
            assert!(Script::new("printf abcdef; echo oops >&2; exit 1").error(LIMIT).contains("oops"));
        }

        #[test]
        fn a_program_that_does_not_know_its_version_is_refused() {
            let script = Script::new("");
            let path = script.folder.path().join("program");
            std::fs::write(&path, "#!/bin/sh\nexit 1\n").unwrap();
            let error = open(&track(Codec::Vp8, [2, 1], &[0.0]), &file(), &path).err().expect("it fails");
            assert_eq!(error.kind(), "unsupported_codec");
            assert!(error.to_string().contains("VP8") && error.to_string().contains("does not work"), "{error}");
        }

        #[test]
        fn too_few_and_too_many_bytes_are_no_image() {
            let few = Script::new("printf abcde").error(LIMIT);
            assert!(few.contains("5 bytes, expected 6"), "{few}");
            let none = Script::new("exit 0").error(LIMIT);
            assert!(none.contains("0 bytes, expected 6"), "{none}");
            let many = Script::new("printf abcdefg").error(LIMIT);
            assert!(many.contains("more than 6"), "{many}");
            // Without end: the pipe is closed and the program fails.
            let started = Instant::now();
            let endless = Script::new("while :; do echo abcdefghijk; done").error(LIMIT);
            assert!(endless.contains("more than 6"), "{endless}");
            assert!(started.elapsed() < LIMIT / 2, "{:?}", started.elapsed());
        }

        #[test]
        fn a_long_complaint_is_read_to_its_end() {
            let words = Script::new("i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1");
            assert!(words.error(LIMIT).contains("line 19999"));
        }

        #[test]
        fn a_hanging_program_is_ended() {
            let limit = Duration::from_millis(300);
            for body in ["exec sleep 30", "sleep 30; true", "printf abcdef; exec sleep 30", "exec >&-; sleep 30"] {
                let script = Script::new(body);
                let started = Instant::now();
                let words = script.error(limit);
                assert!(words.contains("within 300ms"), "{words}");
                assert!(started.elapsed() < Duration::from_secs(5), "{body}: {:?}", started.elapsed());
            }
        }

        #[test]
        fn the_program_is_given_one_local_file_and_the_time_between_two_images() {
            let script = Script::new("for word; do echo \"$word\"; done > \"${0%/*}/said\"; printf abcdef");
            let mut program = script.opened(LIMIT);
            assert_eq!(program.starts_s(), [0.0, 0.04, 0.12]);
            assert!((program.end_s() - 0.16).abs() < 1e-9);
            program.image(2).unwrap();
            let said = std::fs::read_to_string(script.folder.path().join("said")).unwrap();
            let words: Vec<&str> = said.lines().collect();
            let after = |word: &str| words[words.iter().position(|said| *said == word).unwrap() + 1];
            assert_eq!(after("-i"), "file:-film: with an odd name.mp4");
            let times: Vec<&str> = words.windows(2).filter(|two| two[0] == "-ss").map(|two| two[1]).collect();
            assert_eq!(times, ["0.000000", "0.080000"]);
            assert_eq!(after("-protocol_whitelist"), "file,pipe");
            assert!(words.contains(&"-nostdin"));
            program.image(0).unwrap();
            let said = std::fs::read_to_string(script.folder.path().join("said")).unwrap();
            assert_eq!(said.lines().filter(|word| *word == "-ss").count(), 1, "nothing lies before the first image");
        }
    }

    /// The golden clips through a real program, against a decode of the whole video by it.
    #[test]
    fn every_image_is_the_one_of_a_whole_decode() {
        let Some(program) = std::env::var_os("OMNIBURN_TEST_FFMPEG").map(PathBuf::from) else {
            println!("not run: OMNIBURN_TEST_FFMPEG names no FFmpeg program");
            return;
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/media");
        let listing = std::fs::read(folder.join("codecs.json")).unwrap();
        let listing: serde_json::Value = serde_json::from_slice(&listing).unwrap();
        let mut compared = 0;
        for (name, video) in listing.as_object().unwrap() {
            let path = folder.join("codecs").join(name);
            let starts: Vec<f64> =
                video["starts_s"].as_array().unwrap().iter().map(|start| start.as_f64().unwrap()).collect();
            let side = |key: &str| video[key].as_u64().unwrap() as u32;
            let sides = [side("width"), side("height")];
            let mut whole = Command::new(&program);
            whole.args(["-nostdin", "-v", "error", "-i"]).arg(&path);
            whole.args(["-fps_mode", "passthrough", "-vf"]);
            whole.arg("scale=flags=bilinear+accurate_rnd+full_chroma_int+bitexact,format=rgb24");
            whole.args(["-f", "rawvideo", "pipe:1"]);
            let whole = whole.output().unwrap();
            let bytes = (sides[0] * sides[1] * 3) as usize;
            assert_eq!(whole.stdout.len(), bytes * starts.len(), "{name}");
            let codec = Codec::Other(video["codec"].as_str().unwrap().to_owned());
            let mut track = track(codec, sides, &starts);
            for (packet, key) in track.packets.iter_mut().zip(video["keys"].as_array().unwrap()) {
                packet.sync = key.as_bool().unwrap();
            }
            let mut images = open(&track, &VideoSource::file(&path), &program).unwrap();
            let started = Instant::now();
            for (place, want) in whole.stdout.chunks_exact(bytes).enumerate() {
                assert!(images.image(place).unwrap().pixels() == want, "{name}: image {place}");
                compared += 1;
            }
            println!("{name}: {} images, {:?} each", starts.len(), started.elapsed() / starts.len() as u32);
        }
        assert!(compared > 100, "{compared} images");
        // A damaged video.
        let bytes = std::fs::read(folder.join("codecs/hevc.mp4")).unwrap();
        let cut = tempfile::tempdir().unwrap();
        let path = cut.path().join("-cut.mp4");
        std::fs::write(&path, &bytes[..bytes.len() / 3]).unwrap();
        let track = track(Codec::Hevc, [72, 50], &[0.0, 0.4]);
        let error = open(&track, &VideoSource::file(path), &program).unwrap().image(1).unwrap_err();
        println!("{error}");
        assert_eq!(error.kind(), "corrupt");
    }
}
