//! Long jobs: bounded memory, results in order, one item's failure is that item's result.

use std::collections::VecDeque;

use crate::engine::Engine;
use crate::error::ItemError;
use crate::request::{Embedded, Input, Request};

/// Results of [`Engine::embed_iter`], in input order.
///
/// Inputs are taken a window at a time: as many as the memory budget lets wait together.
pub struct EmbedIter<I> {
    engine: Engine,
    inputs: I,
    request: Request,
    ready: VecDeque<Result<Embedded, ItemError>>,
}

impl<I: Iterator<Item = Input>> EmbedIter<I> {
    pub(crate) fn new(engine: Engine, inputs: I, request: Request) -> Self {
        Self { engine, inputs, request, ready: VecDeque::new() }
    }
}

impl<I: Iterator<Item = Input>> Iterator for EmbedIter<I> {
    type Item = Result<Embedded, ItemError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            self.ready.extend(self.engine.window(&mut self.inputs, &self.request));
        }
        self.ready.pop_front()
    }
}

impl<I> std::fmt::Debug for EmbedIter<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbedIter").field("request", &self.request).field("ready", &self.ready.len()).finish()
    }
}
