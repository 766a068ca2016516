//! A text and an image in one space: how near is each image to the words?
//!
//! `cargo run --release -p omniburn --example embed_text_and_image -- RECORD [TEXT [IMAGE…]]`

use std::error::Error;
use std::process::ExitCode;

use omniburn::{Engine, Height, Input, RgbImage, Role, Width};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let Some(record) = args.next() else {
        eprintln!("usage: embed_text_and_image RECORD [TEXT [IMAGE...]]");
        return Ok(ExitCode::from(2));
    };
    let text = args.next().unwrap_or_else(|| "a red square".into());
    let mut images: Vec<(String, Input)> = args.map(|path| (path.clone(), Input::image_file(path))).collect();
    if images.is_empty() {
        // Decoded pixels do as well as a file.
        let red = RgbImage::new(Width(64), Height(64), [200, 30, 30].repeat(64 * 64))?;
        images.push(("a red square, drawn here".into(), Input::image_pixels(red)));
    }

    let engine = Engine::open(record)?;
    let query = engine.embed_one(Input::text(&text), Role::Query)?;
    for (name, image) in images {
        let found = engine.embed_one(image, Role::Document)?;
        println!("{:.4}  {name}", query.cosine(&found));
    }
    Ok(ExitCode::SUCCESS)
}
