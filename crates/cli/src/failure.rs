//! How a command ends when it does not end well, and which exit code that is.

use omniburn::{EngineError, RecordError};
use omniburn_convert::ConvertError;
use omniburn_diagnostics::ReplayError;

/// Exit code when everything was done.
pub const DONE: u8 = 0;
/// Exit code when some input failed; its line says why.
pub const SOME_FAILED: u8 = 1;
/// Exit code for a mistake in what was typed.
pub const USAGE: u8 = 2;
/// Exit code when a checkpoint or a record was refused.
pub const REFUSED: u8 = 3;
/// Exit code when the device could not be used.
pub const DEVICE: u8 = 4;
/// Exit code after Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Why a command stopped before its end.
#[derive(Debug)]
pub enum Failure {
    /// Whoever reads the results has gone away. This is not an error: the command ends quietly.
    ClosedPipe,
    /// The user interrupted.
    Interrupted,
    /// Anything else, with its exit code.
    Error {
        /// The exit code.
        code: u8,
        /// What is said on standard error.
        error: anyhow::Error,
    },
}

/// What a command gives: its exit code, or why it stopped.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    /// A mistake in what was typed.
    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self::with_code(USAGE, anyhow::anyhow!("{message}"))
    }

    /// An error with its exit code.
    pub fn with_code(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Failure::Error { code, error: error.into() }
    }

    /// Exit code of this failure.
    pub fn code(&self) -> u8 {
        match self {
            Failure::ClosedPipe => DONE,
            Failure::Interrupted => INTERRUPTED,
            Failure::Error { code, .. } => *code,
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let code = match &error {
            EngineError::UnknownTask { .. }
            | EngineError::UnknownDim { .. }
            | EngineError::UnknownDevice { .. }
            | EngineError::OutputAbsent { .. }
            | EngineError::NoInstruction { .. }
            | EngineError::NoLateChunks { .. }
            | EngineError::UnknownOutput { .. }
            | EngineError::Record(RecordError::UnknownTask { .. }) => USAGE,
            EngineError::Record(_) | EngineError::Tokenizer(_) | EngineError::TokenizerTable { .. } => REFUSED,
            EngineError::BackendMissing { .. }
            | EngineError::DeviceUnavailable { .. }
            | EngineError::DtypeUnsupported { .. }
            | EngineError::AffineComputed { .. }
            | EngineError::Instructions(_)
            | EngineError::Thread(_) => DEVICE,
            _ => SOME_FAILED,
        };
        Failure::with_code(code, error)
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Engine(error) => error.into(),
            error @ (ReplayError::JournalFormat { .. } | ReplayError::JournalCall { .. }) => {
                Failure::with_code(USAGE, error)
            }
            error @ ReplayError::IdentityMismatch { .. } => Failure::with_code(REFUSED, error),
            error => Failure::with_code(SOME_FAILED, error),
        }
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        Failure::from(EngineError::Record(error))
    }
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        match error {
            ConvertError::Cancelled => Failure::Interrupted,
            error => Failure::with_code(error.exit_code(), error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_errors_become_the_promised_exit_codes() {
        let unknown = EngineError::UnknownDim { asked: 3, allowed: vec![64] };
        let missing = EngineError::BackendMissing { asked: "cuda".into(), compiled: vec!["flex"] };
        let refused = EngineError::Record(RecordError::NotARecord { path: "x".into() });
        assert_eq!([unknown, missing, refused].map(|e| Failure::from(e).code()), [USAGE, DEVICE, REFUSED]);
        assert_eq!(Failure::from(ConvertError::Cancelled).code(), INTERRUPTED);
        assert_eq!(Failure::ClosedPipe.code(), DONE);
    }
}
