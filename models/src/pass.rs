//! Passes in steps, written once for every model of layers.

use std::mem;
use std::sync::Arc;

use burn::tensor::Tensor;

use crate::batch::{MediaRows, TokenRows};
use crate::family::{Output, Pass, PassInput, RowsWanted, StepKind};

/// Matrices of layers that run in one step, in values, over few rows: six layers of 384 take 2 ms for a query.
const SMALL_STEP: usize = 11 << 20;
/// Rows up to which a step has so many layers. Over more rows it has fewer, so that a step takes as long: a pass of many rows is
/// cut as often as it has work, and need not stay small to yield in time.
const SMALL_ROWS: usize = 32;

/// A model whose forward pass enters, runs layer after layer, and leaves with a vector a sequence.
pub trait Layered: Send + Sync {
    /// What is kept between two layers.
    type State: Send;

    /// What is before the first layer.
    ///
    /// # Shapes
    /// - `rows.rows`: `[tokens, hidden]`; `positions`: `[tokens]`, consecutive in every segment where absent
    fn enter(&self, rows: TokenRows, positions: Option<Vec<usize>>) -> Self::State;

    /// [`Layered::enter`] with the token type of each row; none where all are of type 0.
    ///
    /// # Panics
    /// Where the model tells no types apart and is given some: its [`ModelSpec`](crate::family::ModelSpec) says that it
    /// takes none.
    fn enter_typed(&self, rows: TokenRows, positions: Option<Vec<usize>>, types: &[u8]) -> Self::State {
        assert!(types.is_empty(), "a model without token types is given some");
        self.enter(rows, positions)
    }

    /// [`Layered::enter_typed`] with where rows of media lie. Whoever gives them other positions, or adds something to them
    /// between layers, enters here.
    ///
    /// # Panics
    /// Where something is to be added between layers of a model that adds nothing: its own connectors gave it.
    fn enter_media(
        &self,
        rows: TokenRows,
        positions: Option<Vec<usize>>,
        types: &[u8],
        media: Vec<MediaRows>,
    ) -> Self::State {
        assert!(
            media.iter().all(|media| media.added.is_empty()),
            "a model that adds no rows between layers is given some"
        );
        self.enter_typed(rows, positions, types)
    }

    /// Number of layers.
    fn layers(&self) -> usize;

    /// Runs one layer.
    fn layer(&self, index: usize, state: Self::State) -> Self::State;

    /// What is behind the last layer: one vector a sequence, not normalised, made without the first `skipped` rows of each
    /// sequence.
    ///
    /// # Shapes
    /// - returns: `[segments, vector]`
    fn leave(&self, state: Self::State, skipped: &[usize]) -> Tensor<2>;

    /// What the pass ends in; vectors where a model has no head behind them.
    fn end(&self, state: Self::State, ending: &Ending) -> Output {
        Output::Vectors(self.leave(state, &ending.skipped))
    }

    /// Values of one layer's matrices where several small layers make one step ([`StepKind::Encoder`]); `None` where each
    /// layer is a step of its own.
    fn grouped(&self) -> Option<usize> {
        None
    }

    /// Layers of a step over so many rows; 1 where each layer is a step of its own.
    fn step_layers(&self, rows: usize) -> usize {
        let Some(values) = self.grouped() else { return 1 };
        let most = SMALL_STEP.saturating_mul(SMALL_ROWS) / values.max(1) / rows.max(SMALL_ROWS);
        most.min(self.layers()).max(1)
    }

    /// What a pass begins with.
    fn first_step(&self) -> StepKind {
        if self.grouped().is_some() { StepKind::Encoder } else { StepKind::Begin }
    }

    /// The whole pass at once.
    ///
    /// # Shapes
    /// - `input.rows.rows`: `[tokens, hidden]`; returns: `[segments, vector]`
    fn run(&self, input: PassInput) -> Tensor<2> {
        let PassInput { rows, skipped, positions, types, media, .. } = input;
        let state = self.enter_media(rows, positions, &types, media);
        let state = (0..self.layers()).fold(state, |state, index| self.layer(index, state));
        self.leave(state, &skipped)
    }
}

/// What the end of a pass needs to know.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// Rows in front of each sequence that its pooling leaves out; empty means none.
    pub skipped: Vec<usize>,
    /// What is wanted of each row.
    pub wanted: RowsWanted,
}

/// A pass of a [`Layered`] model.
pub struct LayeredPass<M: Layered> {
    model: Arc<M>,
    ending: Ending,
    rows: usize,
    at: At<M::State>,
}

enum At<S> {
    // Boxed: it is much the larger of the two.
    Start(Box<PassInput>),
    Layer(usize, S),
    Over,
}

impl<M: Layered> LayeredPass<M> {
    /// A pass that has not begun.
    pub fn new(model: Arc<M>, mut input: PassInput) -> Self {
        let ending = Ending { skipped: mem::take(&mut input.skipped), wanted: input.wanted };
        let rows = input.rows.segments.rows();
        Self { model, ending, rows, at: At::Start(Box::new(input)) }
    }

    fn one(&mut self) -> Option<Output> {
        let model = &self.model;
        self.at = match mem::replace(&mut self.at, At::Over) {
            At::Start(input) => {
                let PassInput { rows, positions, types, media, .. } = *input;
                At::Layer(0, model.enter_media(rows, positions, &types, media))
            }
            At::Layer(index, state) if index < model.layers() => At::Layer(index + 1, model.layer(index, state)),
            At::Layer(_, state) => return Some(model.end(state, &self.ending)),
            At::Over => panic!("a pass is not stepped after its end"),
        };
        None
    }
}

impl<M: Layered> Pass for LayeredPass<M> {
    fn next(&self) -> StepKind {
        match &self.at {
            _ if self.model.grouped().is_some() => StepKind::Encoder,
            At::Start(..) => StepKind::Begin,
            At::Layer(index, _) if *index < self.model.layers() => StepKind::Layer,
            At::Layer(..) | At::Over => StepKind::End,
        }
    }

    fn layers(&self) -> usize {
        let left = match &self.at {
            At::Layer(index, _) => self.model.layers().saturating_sub(*index),
            At::Start(..) | At::Over => self.model.layers(),
        };
        self.model.step_layers(self.rows).min(left).max(1)
    }

    fn step(&mut self) -> Option<Output> {
        if self.model.grouped().is_none() {
            return self.one();
        }
        let mut left = self.model.step_layers(self.rows);
        loop {
            let layers = self.model.layers();
            match &self.at {
                // A layer that is not small waits for its own step.
                At::Layer(index, _) if *index < layers && left == 0 => return None,
                At::Layer(index, _) if *index < layers => left -= 1,
                _ => {}
            }
            if let Some(output) = self.one() {
                return Some(output);
            }
        }
    }
}
