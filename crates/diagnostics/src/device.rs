//! What kind of device an engine computes on, since bounds differ by it.

use omniburn::{BackendKind, BackendSpec, Engine};

/// The backend an engine computes on.
pub(crate) fn backend(engine: &Engine) -> BackendKind {
    let spec: BackendSpec = engine.profile().device.parse().expect("an engine's device is written as it is read");
    spec.kind
}
