#[path = "../tests/integration/support.rs"]
#[allow(dead_code)]
mod support;
use omniburn_convert::{ConvertOptions, TaskChoice, convert};
use serde_json::json;
use std::io::{BufWriter, Write};
use std::path::Path;
use support::*;
fn fill(path: &Path, keys: &[(String, Vec<usize>)]) {
    write_sparse(path, keys);
    let total: usize = keys.iter().map(|(_, s)| 2 * s.iter().product::<usize>()).sum();
    let len = std::fs::metadata(path).unwrap().len();
    let mut f = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::io::Seek::seek(&mut f, std::io::SeekFrom::Start(len - total as u64)).unwrap();
    let mut f = BufWriter::with_capacity(1 << 20, f);
    let mut s = 88172645463325252u64;
    let mut left = total;
    while left > 0 {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        // exponents near 0.02
        let v = (s & 0x81FF_81FF_81FF_81FF) | 0x3C00_3C00_3C00_3C00;
        let n = left.min(8);
        f.write_all(&v.to_le_bytes()[..n]).unwrap();
        left -= n;
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let dir = Path::new(&a[2]);
    let small = !a[2].contains("nano");
    if a[1] == "make" {
        let layout = if a[3] == "tasks" { Layout::Tasks } else { Layout::Mlx };
        let d = Dims::full(small);
        write_json(&dir.join("config.json"), &d.config(layout));
        write_json(&dir.join("tokenizer.json"), &tokenizer(d.vocab));
        fill(&dir.join("model.safetensors"), &d.files(layout));
        for t in TASKS {
            let at = dir.join("adapters").join(t);
            write_json(&at.join("adapter_config.json"), &json!({"peft_type": "LORA", "r": 32, "lora_alpha": 32}));
            let keys: Vec<_> = d
                .shared()
                .into_iter()
                .filter(|(n, s)| n.starts_with("language_model.layers") && s.len() == 2)
                .flat_map(|(name, shape)| {
                    let at = format!("base_model.model.{}", name.trim_end_matches(".weight"));
                    [
                        (format!("{at}.lora_A.weight"), vec![32, shape[1]]),
                        (format!("{at}.lora_B.weight"), vec![shape[0], 32]),
                    ]
                })
                .collect();
            fill(&at.join("adapter_model.safetensors"), &keys);
        }
        return;
    }
    let mut o = ConvertOptions::new(dir, &a[3]);
    o.tasks = match a[4].as_str() {
        "all" => TaskChoice::All,
        "default" => TaskChoice::Default,
        n => TaskChoice::Named(n.into()),
    };
    o.dtype = a[5].parse().unwrap();
    o.check = a.get(6).is_some_and(|s| s == "check");
    o.force = true;
    let mut r = convert(&o).unwrap();
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    for l in s.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("RssAnon")) {
        println!("{l}");
    }
    r.peak_memory_bytes = None;
    println!("{r}");
}
