//! A record again in affine groups: its matrices as they are read, rounded to 8 or 4 bits, everything else as it lies. For
//! measuring what the types cost a model whose checkpoint is not at hand.
//!
//! `requantise RECORD OUT affine8|affine4`.

use std::path::Path;
use std::process::ExitCode;

use omniburn::{Dtype, RecordFolder};
use omniburn_models::record::affine::{AffineRows, Packed, PanelFormat};
use omniburn_models::record::{PartTensor, RecordWriter, TOKENIZER_FILE, TensorRole};

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [record, out, dtype] = args.as_slice() else {
        eprintln!("usage: requantise RECORD OUT affine8|affine4");
        return ExitCode::from(2);
    };
    match dtype.parse().map_err(Error::from).and_then(|dtype| requantise(Path::new(record), Path::new(out), dtype)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("requantise: {e}");
            ExitCode::from(1)
        }
    }
}

fn requantise(record: &Path, out: &Path, dtype: Dtype) -> Result<(), Error> {
    let record = RecordFolder::open(record)?;
    let mut writer = RecordWriter::create(out, false)?;
    for (file, specs) in record.parts() {
        let part = record.part(&file, &specs)?;
        let mut tensors = Vec::new();
        for spec in &specs {
            let wanted = spec.stored(dtype);
            if spec.role != TensorRole::Linear {
                let (stored, bytes) = (part.dtype(&spec.name), part.bytes(&spec.name).to_vec());
                tensors.push(PartTensor::new(&spec.name, stored, spec.shape.clone(), move || Ok(bytes.clone())));
                continue;
            }
            let Some((layout, PanelFormat::Affine(format))) = spec.panels(wanted).map(|layout| (layout, layout.format))
            else {
                return Err(format!("{dtype} has no affine groups").into());
            };
            let [inputs, outputs] = [layout.inputs, layout.outputs];
            let values = part.packed(&spec.name, PanelFormat::F32).to_f32(); // [inputs, outputs]
            let rows: Vec<f32> = (0..inputs * outputs).map(|at| values[at % inputs * outputs + at / inputs]).collect();
            let packed = Packed::from_affine(layout, &AffineRows::quantize(&rows, inputs, format));
            tensors.push(PartTensor::packed(&spec.name, wanted, layout, move || Ok(packed.clone())));
            // The scales of int8 go with it.
        }
        let gone = |name: &str| specs.iter().any(|spec| spec.role == TensorRole::Linear && name == spec.scale().name);
        tensors.retain(|tensor| !gone(&tensor.name));
        writer.write_part(&file, tensors, |_| {})?;
    }
    writer.copy_file(TOKENIZER_FILE, &record.tokenizer_path())?;
    let mut header = record.header().clone();
    header.dtype = dtype;
    writer.finish(header)?;
    Ok(())
}
