//! The bodies of omniburn-hostile under libFuzzer. One binary for all: `OMNIBURN_HOSTILE_TARGET` names the one to run, or
//! with `OMNIBURN_HOSTILE_SEEDS` a folder takes the valid files of every target.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use omniburn_hostile::{Target, panics, target, targets};

static TARGET: OnceLock<Target> = OnceLock::new();

/// Where the bodies are, with their limits and shares: `NAME LIMIT_MIB SHARE` a line.
const LIST: &str = "targets.txt";

fn write_seeds(folder: &Path) -> std::io::Result<()> {
    let mut list = String::new();
    for target in targets() {
        target.write_seeds(&folder.join(target.name))?;
        list += &format!("{} {} {}\n", target.name, target.limit_mib, target.share);
    }
    std::fs::write(folder.join(LIST), list)
}

fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("OMNIBURN_HOSTILE_SEEDS") {
            write_seeds(Path::new(&folder)).expect("seeds can be written");
            std::process::exit(0);
        }
        let name = std::env::var("OMNIBURN_HOSTILE_TARGET").expect("OMNIBURN_HOSTILE_TARGET names a target");
        let found = target(&name).unwrap_or_else(|| panic!("no target is called {name}"));
        TARGET.get_or_init(|| found);
        // libFuzzer's own hook ends the process at any panic. One of a third party may be caught and become an error;
        // one that begins in our code is a finding even then.
        panics::watch(|what| {
            eprintln!("panic in our own code: {what}");
            std::process::abort();
        });
    },
    |data: &[u8]| {
        let target = TARGET.get().expect("set at the start");
        (target.body)(data);
    }
);
