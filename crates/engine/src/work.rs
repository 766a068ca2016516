//! What an input costs, counted and not timed: rows of the backbone and operations. The limits of the machine it is held
//! against: `peak`.

use omniburn_models::flops::Shape;

use crate::engine::Engine;
use crate::error::ItemError;
use crate::prepare::{Medium, Prepared, Rows};
use crate::request::{Input, Request};

/// How much an input is for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Rows that enter the backbone, of all segments together.
    pub tokens: usize,
    /// Operations from what the towers read to the vector, two a multiply-add: products, convolutions and attention. What
    /// is done to a medium before its tower is not counted.
    pub flops: u64,
}

impl Engine {
    /// What an input would cost, without computing anything: it is read and decoded, outside the memory budget.
    ///
    /// # Errors
    /// [`ItemError`] as embedding it would give before the device is asked.
    pub fn work(&self, input: &Input, request: &Request) -> Result<Work, ItemError> {
        let family = &self.header().family;
        let count = |tokens: usize, shape: Shape| {
            let flops = family.flops(&shape).expect("what was prepared has a way into the family");
            Work { tokens, flops }
        };
        match self.prepare(input.clone(), request)? {
            Prepared::Text { ids, .. } => Ok(count(ids.len(), Shape::Text { tokens: ids.len() })),
            Prepared::Media(medium) => Ok(count(medium.tokens, shape(&medium))),
            Prepared::Long(mut long) => {
                let mut all = Work::default();
                while let Some(medium) = self.next_segment(&mut long, request)? {
                    let one = count(medium.tokens, shape(&medium));
                    all = Work { tokens: all.tokens + one.tokens, flops: all.flops + one.flops };
                }
                Ok(all)
            }
        }
    }
}

fn shape(medium: &Medium) -> Shape {
    let tokens = medium.tokens;
    match &medium.rows {
        Rows::Patches(patches) => {
            let grid = patches.grid();
            Shape::Patches { groups: grid.t, patches: grid.h * grid.w, tokens }
        }
        Rows::Mel(mel) => Shape::Mel { clips: vec![mel.frames()], tokens },
        Rows::Clips(clips) => Shape::Mel { clips: clips.iter().map(|mel| mel.frames()).collect(), tokens },
        Rows::Squares(squares) => Shape::Pixels { count: squares.count },
    }
}

#[cfg(all(test, feature = "mini"))]
mod tests {
    use omniburn_media::{Height, RgbImage, Width};

    use super::*;
    use crate::request::Role;

    #[test]
    fn work_is_what_embedding_reports_and_grows_with_the_input() {
        let engine = Engine::mini().unwrap();
        let request = Request::new(Role::None);
        let picture = || RgbImage::new(Width(20), Height(10), vec![7; 600]).unwrap();
        let inputs = [
            Input::text("a red bicycle"),
            Input::text("a red bicycle and a blue one beside it"),
            Input::image_pixels(picture()),
            Input::video_frames(vec![picture(), picture(), picture()]),
            Input::audio_samples(vec![0.1f32; 16_000], 16_000),
            Input::audio_samples(vec![0.1f32; 8 * 16_000], 16_000),
        ];
        let work: Vec<Work> = inputs.iter().map(|input| engine.work(input, &request).unwrap()).collect();
        for (found, work) in engine.embed_with(&inputs, &request).unwrap().into_iter().zip(&work) {
            assert_eq!(found.unwrap().tokens, work.tokens);
        }
        println!("{work:?}");
        assert!(
            work[1].flops > work[0].flops && work[3].flops > 2 * work[2].flops && work[5].flops > 3 * work[4].flops
        );
        assert!(engine.work(&Input::text("word ".repeat(400)), &request).is_err());
    }
}
