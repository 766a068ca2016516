//! All captured intermediates of one forward pass to a safetensors file, in forward order; `cargo xtask dump` starts it.
//!
//! `dump INPUT --model DIR --out FILE`: INPUT is an image or audio file, or text. Document role, the record's default task, f32
//! on flex.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::{Device, Tensor, TensorData};
use omniburn::media::sniff;
use omniburn::record::{TemplateKind, mel_preprocess, vision_preprocess};
use omniburn::{Dtype, Modality, RecordFolder};
use omniburn_kernels::Segments;
use omniburn_media::{AudioReader, AudioSource, TextTokenizer, decode_image_file, image_patches, log_mel};
use omniburn_models::batch::{Grid, MelRows, PatchRows, TokenRows};
use omniburn_models::capture;
use omniburn_output::{Destination, FileId, WholeFile};
use safetensors::tensor::TensorView;

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1));
    let (Some(input), Some(model), Some(out)) = (args.first(), value("--model"), value("--out")) else {
        eprintln!("usage: dump INPUT --model DIR --out FILE");
        return ExitCode::from(2);
    };
    match dump(input, Path::new(model), Path::new(out)) {
        Ok(count) => {
            println!("{count} intermediates in {out}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("dump: {e}");
            ExitCode::from(1)
        }
    }
}

/// Whether a file is an audio by its first bytes.
fn audio(path: &Path) -> Result<bool, Error> {
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(1024).read_to_end(&mut head)?;
    let format = sniff(&head).unwrap_or_default();
    Ok(["wav", "aiff", "caf", "mp3", "flac", "aac", "m4a", "ogg"].contains(&format))
}

fn dump(input: &str, model: &Path, out: &Path) -> Result<usize, Error> {
    let to = Destination::of(out)?;
    if to.id().is_some() && to.id() == FileId::of(Path::new(input)) {
        return Err(format!("{input}: the file is read, and --out would write over it: name another").into());
    }
    let (mut file, _) = WholeFile::create(&to)?;
    let record = RecordFolder::open(model)?;
    let header = record.header();
    let config = header.family.of::<omniburn_models::families::OmniConfig>().expect("a record of this family");
    let device = Device::flex();
    let text = config.open_text(&record, &header.default_task, config.open_tokens(&record)?, Dtype::F32, &device)?;
    let tokenizer = TextTokenizer::from_file(&record.tokenizer_path())?;
    let rows = |ids: &[u32]| -> Result<Tensor<2>, Error> {
        let mut values = Vec::new();
        text.tokens.gather(ids, &mut values).map_err(|id| format!("token id {id} is outside the table"))?;
        Ok(Tensor::from_data(TensorData::new(values, [ids.len(), text.tokens.hidden()]), &device))
    };
    let prefix = &header.prompts.document;
    let path = PathBuf::from(input);
    let (result, captured) = capture::collect(|| -> Result<(), Error> {
        let rows = if path.is_file() {
            let modality = if audio(&path)? { Modality::Audio } else { Modality::Image };
            let features = match modality {
                Modality::Audio => {
                    let tower = config.open_audio(&record, Dtype::F32, &device)?;
                    let tower = tower.ok_or("the record has no audio tower")?;
                    let p = header.preprocess.audio.as_ref().ok_or("the record does not say how sound is prepared")?;
                    let mut reader = AudioReader::open(&AudioSource::file(path.clone()), p.sample_rate_hz)?;
                    // Of a long audio, its first segment.
                    let segment = reader.next_segment()?.ok_or("the file has no sound")?;
                    let mel = log_mel(&segment.samples, &mel_preprocess(p))?;
                    let windows = config.audio.as_ref().ok_or("no sound tower")?.windows(mel.frames());
                    let mel = MelRows::new(mel.values().to_vec(), mel.mels(), windows, &device);
                    text.project(tower.pool(tower.forward(mel)))
                }
                _ => {
                    let tower = config.open_vision(&record, Dtype::F32, &device)?;
                    let tower = tower.ok_or("the record has no image tower")?;
                    let p =
                        header.preprocess.image.as_ref().ok_or("the record does not say how pictures are prepared")?;
                    let patches = image_patches(&decode_image_file(&path)?, &vision_preprocess(p))?;
                    let grid = Grid { t: patches.grid().t, h: patches.grid().h, w: patches.grid().w };
                    let width = patches.row_len();
                    let rows = tower.forward(PatchRows::new(patches.rows(), width, vec![grid], &device)).last;
                    text.merger.as_ref().ok_or("the task has no merger")?.forward(rows)
                }
            };
            let template = &header.templates[&modality];
            let mut before = tokenizer.ids_bare(prefix)?;
            let mut after = Vec::new();
            if template.kind != TemplateKind::Bare {
                before.extend(template.start);
                after.extend(template.end);
            }
            if template.kind != TemplateKind::Noeos {
                after.extend(tokenizer.trailing_specials());
            }
            let mut pieces = vec![rows(&before)?, features];
            if !after.is_empty() {
                pieces.push(rows(&after)?);
            }
            Tensor::cat(pieces, 0)
        } else {
            rows(&tokenizer.ids(&format!("{prefix}{input}"))?)?
        };
        let segments = Segments::single(rows.dims()[0]);
        let _ = text.embed(TokenRows { rows, segments });
        Ok(())
    });
    result?;
    let bytes: Vec<Vec<u8>> =
        captured.iter().map(|t| t.values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = captured
        .iter()
        .zip(&bytes)
        .map(|(t, b)| Ok((t.name.clone(), TensorView::new(safetensors::Dtype::F32, t.shape.clone(), b)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let order = captured.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(",");
    let bytes = safetensors::serialize(views, Some(HashMap::from([("order".to_string(), order)])))?;
    file.write(&bytes)?;
    file.finish()?;
    Ok(captured.len())
}
