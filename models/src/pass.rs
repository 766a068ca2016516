//! Passes in steps, written once for every model of layers.

use std::mem;
use std::sync::Arc;

use burn::tensor::Tensor;

use crate::batch::TokenRows;
use crate::family::{Pass, PassInput, StepKind};

/// Matrices of layers that run in one step, in values: six layers of 384 take 2 ms for a query.
const SMALL_STEP: usize = 11 << 20;

/// A model whose forward pass enters, runs layer after layer, and leaves with a vector a sequence.
pub trait Layered: Send + Sync {
    /// What is kept between two layers.
    type State: Send;

    /// What is before the first layer.
    ///
    /// # Shapes
    /// - `rows.rows`: `[tokens, hidden]`; `positions`: `[tokens]`, consecutive in every segment where absent
    fn enter(&self, rows: TokenRows, positions: Option<Vec<usize>>) -> Self::State;

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

    /// Values of one layer's matrices where several small layers make one step ([`StepKind::Encoder`]); `None` where each
    /// layer is a step of its own.
    fn grouped(&self) -> Option<usize> {
        None
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
        let PassInput { rows, skipped, positions } = input;
        let state = (0..self.layers()).fold(self.enter(rows, positions), |state, index| self.layer(index, state));
        self.leave(state, &skipped)
    }
}

/// A pass of a [`Layered`] model.
pub struct LayeredPass<M: Layered> {
    model: Arc<M>,
    skipped: Vec<usize>,
    at: At<M::State>,
}

enum At<S> {
    // Boxed: it is much the larger of the two.
    Start(Box<(TokenRows, Option<Vec<usize>>)>),
    Layer(usize, S),
    Over,
}

impl<M: Layered> LayeredPass<M> {
    /// A pass that has not begun.
    pub fn new(model: Arc<M>, input: PassInput) -> Self {
        let PassInput { rows, skipped, positions } = input;
        Self { model, skipped, at: At::Start(Box::new((rows, positions))) }
    }

    fn one(&mut self) -> Option<Tensor<2>> {
        let model = &self.model;
        self.at = match mem::replace(&mut self.at, At::Over) {
            At::Start(input) => At::Layer(0, model.enter(input.0, input.1)),
            At::Layer(index, state) if index < model.layers() => At::Layer(index + 1, model.layer(index, state)),
            At::Layer(_, state) => return Some(model.leave(state, &self.skipped)),
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

    fn step(&mut self) -> Option<Tensor<2>> {
        let Some(values) = self.model.grouped() else { return self.one() };
        let mut left = (SMALL_STEP / values.max(1)).max(1);
        loop {
            let layers = self.model.layers();
            match &self.at {
                // A layer that is not small waits for its own step.
                At::Layer(index, _) if *index < layers && left == 0 => return None,
                At::Layer(index, _) if *index < layers => left -= 1,
                _ => {}
            }
            if let Some(vectors) = self.one() {
                return Some(vectors);
            }
        }
    }
}
