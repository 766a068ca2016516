//! Which of the processor's instructions are the fastest: measured once, and kept in the user's cache beside the tuning of other
//! devices, a file a processor.
//!
//! Measured is by `doctor`, which is about the machine anyway, and before a job of many inputs, where the processor has more than
//! one set to choose from; never before a single input, whose vector would wait for as long as the model takes to open. Not in
//! the background either: beside a job the times would be the job's. Until then what the processor's flags say is used, which on
//! every processor met so far is what a measurement says. What is kept stays until it is asked for anew, and what cannot be kept
//! is not measured for a job, so that bits do not change from run to run.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use omniburn::kernels::{KernelChoice, Processor};
use omniburn_output::{Destination, OutputError, WholeFile};

use super::user_folders;

/// Inputs from which on a job is worth a measurement.
pub const MANY_INPUTS: usize = 64;
/// Longest file that is read: one of five sets has 3 kB.
const MOST_BYTES: u64 = 1 << 16;

/// The choice kept for this processor and version.
pub fn kept() -> Option<KernelChoice> {
    let here = Processor::here();
    read(&file(&here)?, &here)
}

/// The choice kept, or one that is measured now and kept, where there is anything to choose and a folder that keeps it.
pub fn kept_or_measured() -> Option<KernelChoice> {
    kept().or_else(|| {
        let here = Processor::here();
        if !here.has_choice() || fs::create_dir_all(file(&here)?.parent()?).is_err() {
            return None;
        }
        let (choice, kept) = measure();
        kept.then_some(choice)
    })
}

/// Measures, and keeps what comes of it; whether it could be kept.
pub fn measure() -> (KernelChoice, bool) {
    let choice = KernelChoice::measure(None);
    let written = file(&choice.processor).is_some_and(|path| match write(&path, &choice) {
        Ok(()) => true,
        // Later runs use what the processor's flags say.
        Err(e) => {
            tracing::debug!("the choice of kernels is not kept: {e}");
            false
        }
    });
    (choice, written)
}

/// The file of a processor; `None` where no cache folder is known.
fn file(processor: &Processor) -> Option<PathBuf> {
    // FNV-1a: it tells files apart, and what is in them is compared.
    let words = format!("{processor:?}");
    let hash = words
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Some(user_folders::cache()?.join("kernels").join(format!("{hash:016x}.json")))
}

/// What a file holds, if it is whole and of this processor.
fn read(path: &Path, here: &Processor) -> Option<KernelChoice> {
    let mut text = String::new();
    File::open(path).ok()?.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    let choice: KernelChoice = match serde_json::from_str(&text) {
        Ok(choice) => choice,
        Err(e) => {
            tracing::debug!("the kept choice of kernels is damaged: {e}");
            return None;
        }
    };
    choice.holds_on(here).then_some(choice)
}

fn write(path: &Path, choice: &KernelChoice) -> Result<(), OutputError> {
    if let Some(folder) = path.parent() {
        // Where it cannot be made, the file cannot either, and that says why.
        let _ = fs::create_dir_all(folder);
    }
    let text = serde_json::to_string_pretty(choice).expect("plain data always serialises");
    let (mut file, _) = WholeFile::create(&Destination::of(path)?)?;
    file.write(text.as_bytes())?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_kept_and_read_back_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/kernels/one.json");
        let (choice, here) = (KernelChoice::measure(Some(1)), Processor::here());
        assert_eq!(read(&path, &here), None, "there is none yet");
        for _ in 0..2 {
            write(&path, &choice).unwrap();
            assert_eq!(read(&path, &here).as_ref(), Some(&choice));
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_damaged_cut_or_of_another_processor_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.json");
        let (choice, here) = (KernelChoice::measure(Some(1)), Processor::here());
        write(&path, &choice).unwrap();
        let whole = fs::read(&path).unwrap();
        let taken = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read(&path, &here)
        };
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            assert_eq!(taken(&whole[..cut]), None, "{cut} bytes");
        }
        assert_eq!(taken(&[0xff; 400]), None);
        assert_eq!(taken(&[b' '; 1 << 17]), None);
        let words = String::from_utf8(whole.clone()).unwrap();
        assert_eq!(taken(words.replace("\"isa\"", "\"isas\"").as_bytes()), None);
        // Another set than the times say: the file was meddled with.
        let other =
            omniburn::kernels::Isa::ALL.into_iter().find(|isa| *isa != choice.isa && isa.is_available()).unwrap();
        let meddled = KernelChoice { isa: other, ..choice.clone() };
        assert_eq!(taken(&serde_json::to_vec(&meddled).unwrap()), None);
        let elsewhere = Processor { name: "another".into(), ..here.clone() };
        let foreign = KernelChoice { processor: elsewhere.clone(), ..choice.clone() };
        assert_eq!(taken(&serde_json::to_vec(&foreign).unwrap()), None);
        assert_eq!(read(&path, &elsewhere), Some(foreign), "there it would hold");
        assert_eq!(taken(&whole), Some(choice));
        assert_ne!(file(&here), file(&elsewhere));
    }

    #[test]
    fn a_place_that_takes_no_file_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(write(&folder.path().join("file/below/one.json"), &KernelChoice::measure(Some(1))).is_err());
    }
}
