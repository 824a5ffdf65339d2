//! How much connections may hold of heads that are not whole and of requests that wait.

/// What each connection may hold whatever others do, in bytes: a head as nearly all are, and the request that it becomes.
pub(super) const OWN: usize = 2 * 1024;
/// What all of them may hold beyond that, together, in bytes.
pub(super) const COMMON: usize = 64 * 1024 * 1024;

/// What is taken of [`COMMON`].
#[derive(Debug, Default)]
pub(super) struct Room {
    taken: usize,
}

impl Room {
    /// How many bytes a connection may hold that holds so many now.
    pub(super) fn of(&self, held: usize) -> usize {
        let others = self.taken.saturating_sub(beyond(held));
        OWN + COMMON.saturating_sub(others)
    }

    /// A connection holds so many bytes instead of so many.
    pub(super) fn change(&mut self, from: usize, to: usize) {
        self.taken = self.taken.saturating_sub(beyond(from)) + beyond(to);
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken
    }
}

/// What is not a connection's own.
fn beyond(held: usize) -> usize {
    held.saturating_sub(OWN)
}
