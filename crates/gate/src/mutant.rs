//! Mistakes that the model check has to find. In a build without the feature `loom` none of them can be made, and the
//! questions after them cost nothing.

/// One way to get the gate wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Whoever is given the permit is not woken.
    RingLeftOut,
    /// A permit that is given back is given to nobody.
    NoGrant,
    /// A permit is kept where its unit panics.
    KeptOnPanic,
    /// A caller that has given up and not yet woken is given the turn.
    GoneNotSkipped,
    /// A caller that gives up leaves its place in the queue.
    PlaceKept,
    /// A caller looks whether it was cancelled before its handle knows it, and not after.
    ListedTooLate,
    /// A handle wakes before it says why.
    RungTooEarly,
    /// A caller that was given the permit and has given up forgets to hand it on.
    NotHandedOn,
    /// Whoever is woken takes it for the permit.
    RingTakenForGrant,
    /// Who passes is not woken for its next turn.
    PassedNotSeated,
    /// Who passes comes last in its class.
    PassedToTheTail,
    /// Who arrives takes the permit though somebody holds it.
    TwoPermits,
    /// Who arrives goes before the others of its class.
    LastComeFirst,
    /// Aging does not look at who has waited for a background unit already.
    AgingBlind,
}

/// Whether the mistake is made in this build and this run.
#[cfg(not(feature = "loom"))]
#[inline(always)]
pub(crate) const fn made(_: Mutant) -> bool {
    false
}

#[cfg(feature = "loom")]
pub(crate) use crate::model::made;
