//! `omniburn calibrate`: how high the cosines of unrelated pairs are, so that scores can be compared between modalities.

use std::fs;

use omniburn_index::{Apart, Calibration, Embedder, Index, Modality, PairCalibration, Rules, query_vector};

use super::index::{root_of, say_failed};
use super::place::{Stop, embedder, shown, with_progress};
use crate::failure::{DONE, Failure, Outcome};
use crate::find_args::CalibrateArgs;
use crate::output::{OutFile, destination, line_of, write_stdout};
use crate::progress::say;

/// Measures a model on queries that have nothing to do with files.
///
/// # Errors
/// A usage failure where there are too few pairs of every modality; as indexing gives.
pub fn run(args: &CalibrateArgs) -> Outcome {
    let text =
        fs::read_to_string(&args.queries).map_err(|e| Failure::usage(format!("{}: {e}", shown(&args.queries))))?;
    let queries: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let roots = args.folders.iter().map(|path| root_of(path, &Rules::default())).collect::<Result<Vec<_>, _>>()?;
    let to = args.out.as_deref().map(destination).transpose()?;
    let stop = Stop::at_interrupt();
    let model = embedder(&args.feeder, &stop)?;
    let profile = model.profile();
    let scratch = std::env::temp_dir().join(format!("omniburn-calibrate-{}", std::process::id()));
    let measured = measure(&scratch, &model, &roots, &queries, args, &stop);
    let _ = fs::remove_dir_all(&scratch);
    let Measured { centre, cosines, apart } = measured?;
    let mut pairs = Vec::new();
    for ((item, cosines), apart) in Modality::ALL.into_iter().zip(cosines).zip(apart) {
        let count = cosines.len();
        match PairCalibration::of(Modality::Text, item, cosines, Some(apart)) {
            Some(pair) => pairs.push(pair),
            None => say(format_args!("{}: {count} pairs, a thousand are needed", item.name())),
        }
    }
    if pairs.is_empty() {
        return Err(Failure::usage("no modality has a thousand pairs of a query and an item: give more of either"));
    }
    let line = line_of(&Calibration { identity: profile.identity, centre, pairs });
    match to {
        None => write_stdout(&line)?,
        Some(to) => {
            let mut out = OutFile::create(&to)?;
            out.write(&line)?;
            out.finish()?;
        }
    }
    Ok(DONE)
}

/// What the pairs of queries and items have.
struct Measured {
    /// The mean of the queries: `[dim]`.
    centre: Vec<f32>,
    /// The cosines of every query with every item, by modality.
    cosines: [Vec<f32>; 4],
    /// The products of query and item, both without the centre.
    apart: [Vec<f32>; 4],
}

fn measure(
    scratch: &std::path::Path,
    model: &omniburn_index::EngineEmbedder,
    roots: &[omniburn_index::Root],
    queries: &[&str],
    args: &CalibrateArgs,
    stop: &Stop,
) -> Result<Measured, Failure> {
    let mut index = Index::open_or_begin(scratch, &model.profile())?;
    let patience = std::time::Duration::ZERO;
    let report = with_progress(args.feeder.quiet, stop, |control| index.update(model, roots, patience, control))?;
    say_failed(&report.failed);
    let vectors = queries.iter().map(|query| query_vector(model, query)).collect::<Result<Vec<_>, _>>()?;
    let mean = |at: usize| vectors.iter().map(|vector| f64::from(vector[at])).sum::<f64>() / vectors.len() as f64;
    let centre: Vec<f32> = (0..model.profile().dim).map(|at| mean(at) as f32).collect();
    let (mut cosines, mut apart): ([Vec<f32>; 4], [Vec<f32>; 4]) = Default::default();
    for vector in &vectors {
        cosines.iter_mut().zip(index.cosines(vector)?).for_each(|(all, new)| all.extend(new));
        let query = Apart::of(vector, &centre);
        let products = |with_items: Vec<f32>| with_items.into_iter().map(|product| query.product(product));
        apart.iter_mut().zip(index.cosines(&query.vector)?).for_each(|(all, new)| all.extend(products(new)));
    }
    Ok(Measured { centre, cosines, apart })
}
